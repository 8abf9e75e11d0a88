import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { basename, join } from "node:path";
import { inspectIso, parseFound, parseVolumeDate } from "../../src/rescue/iso/inspect.ts";
import { addKernelArguments, bootAtOnce } from "../../src/rescue/iso/menu.ts";
import { parseKernelArguments, stageRecovery } from "../../src/rescue/iso/recovery.ts";
import { repackIso, RESCUE_ARGUMENTS, rewriteMenus } from "../../src/rescue/iso/repack.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { testWith } from "../fixtures/needs.ts";

const ARGS = ["autorun=method:cdrom,directory:/r", "console=ttyS0,115200", "panic=5"];
const ADDED = ARGS.join(" ");

describe("addKernelArguments", () => {
  test.each([
    ["isolinux", "label a\n append initrd=/i live", `label a\n append initrd=/i live ${ADDED}`],
    ["isolinux, one word", "label a\nAPPEND initrd=/i\n", `label a\nAPPEND initrd=/i ${ADDED}\n`],
    [
      "isolinux, CR LF",
      "label a\r\n append initrd=/i  \r\n ipappend 2\r\n",
      `label a\r\n append initrd=/i ${ADDED}  \r\n ipappend 2\r\n`,
    ],
    ["isolinux, no Linux", "label a\n append hd0 0\nlabel b\n append -\n", undefined],
    ["isolinux's own linux", "label a\n linux /boot/vmlinuz\n", undefined],
    ["grub", "  linux /vmlinuz quiet\n  initrd /i\n", `  linux /vmlinuz quiet ${ADDED}\n  initrd /i\n`],
    ["grub without arguments", "linux /vmlinuz", `linux /vmlinuz ${ADDED}`],
    ["linuxefi", "\tlinuxefi /vmlinuz quiet", `\tlinuxefi /vmlinuz quiet ${ADDED}`],
    ["$linux", "$linux /vmlinuz a ${b} $c", `$linux /vmlinuz a \${b} $c ${ADDED}`],
    ["${linuxcmd}", "${linuxcmd} /vmlinuz a", `\${linuxcmd} /vmlinuz a ${ADDED}`],
    [
      "one line",
      "menuentry 'a' { linux /v q; initrd /i }",
      `menuentry 'a' { linux /v q ${ADDED}; initrd /i }`,
    ],
    ["brace at the end", "menuentry 'a' {linux /v q }", `menuentry 'a' {linux /v q ${ADDED} }`],
    ["continued line", "linux /v a \\\n  b\ninitrd /i", `linux /v a \\\n  b ${ADDED}\ninitrd /i`],
    ["quotes", `linux /v "a;b" 'c}'`, `linux /v "a;b" 'c}' ${ADDED}`],
    ["memtest", "linux16 /boot/memtest86+ quiet", undefined],
    ["comment", "# linux /v", undefined],
    ["another command", "linuxx /v\nsearch linux /v", undefined],
    ["autorun replaced", "linux /v autorun=method:disk,label:x a", `linux /v a ${ADDED}`],
    ["autorun first", "label a\nappend autorun=x initrd=i", `label a\nappend initrd=i ${ADDED}`],
    [
      "the same console, another console",
      "linux /v console=ttyS0 console=tty0 panic=60 panicky",
      `linux /v console=tty0 panicky ${ADDED}`,
    ],
    ["nothing", "", undefined],
  ])("%s", (_what, text, expected) => {
    const result = addKernelArguments(text, ARGS);
    expect(result).toBe(expected ?? text);
    expect(addKernelArguments(result, ARGS)).toBe(result);
  });
});

describe("bootAtOnce", () => {
  test.each([
    ["a menu file without entries", "set timeout=30\nsource /x.cfg\n", undefined],
    ["isolinux without a Linux", "default hd\ntimeout 90\nlabel hd\n localboot 0\n", undefined],
    [
      "isolinux with a graphical menu and the hard disk first",
      "default harddisk\nprompt 1\ntimeout 600\nui gfxboot bootlogo\ngfxboot bootlogo\nlabel harddisk\n localboot 0\n" +
        "label deploy\n append initrd=i stagename=rescue live_rw\n" +
        "label rescue\n menu default\n append initrd=i stagename=rescue\n",
      "default rescue\nprompt 0\ntimeout 1\nlabel harddisk\n localboot 0\n" +
        "label deploy\n append initrd=i stagename=rescue live_rw\n" +
        "label rescue\n append initrd=i stagename=rescue\n",
    ],
    [
      "isolinux with a Linux as default",
      "default b\nlabel a\n append initrd=i stagename=rescue\nlabel b\n append initrd=i\n",
      "default b\nprompt 0\ntimeout 1\nlabel a\n append initrd=i stagename=rescue\nlabel b\n append initrd=i\n",
    ],
    [
      "grub without settings",
      "menuentry 'a' {\n linux /v\n}\n",
      "set default='0'\nset timeout=0\nmenuentry 'a' {\n linux /v\n}\n",
    ],
    [
      "grub, conditional",
      "if keystatus --shift; then\n  set timeout=-1\nelse\n  set timeout=60\nfi\nset default=harddisk\n" +
        "submenu 'Language' {\n menuentry 'x' { linux /v }\n}\nmenuentry 'h' --id 'harddisk' {\n chainloader +1\n}\n" +
        "menuentry $\"R\" --id 'rescue' {\n linux /v ${x} stagename=rescue\n}\n",
      "set default='rescue'\nset timeout=0\nif keystatus --shift; then\n  set timeout=0\nelse\n  set timeout=0\nfi\nset default='rescue'\n" +
        "submenu 'Language' {\n menuentry 'x' { linux /v }\n}\nmenuentry 'h' --id 'harddisk' {\n chainloader +1\n}\n" +
        "menuentry $\"R\" --id 'rescue' {\n linux /v ${x} stagename=rescue\n}\n",
    ],
    [
      "grub, by place",
      "menuentry 'm' {\n linux16 /memtest\n}\nsubmenu 's' {\n}\nmenuentry 'f' {\n linux /v forensic\n}\nmenuentry 'r' {\n linux /v\n}\n",
      "set default='3'\nset timeout=0\n" +
        "menuentry 'm' {\n linux16 /memtest\n}\nsubmenu 's' {\n}\nmenuentry 'f' {\n linux /v forensic\n}\nmenuentry 'r' {\n linux /v\n}\n",
    ],
  ])("%s", (_what, text, expected) => {
    const result = bootAtOnce(text);
    expect(result).toBe(expected ?? text);
    expect(bootAtOnce(result)).toBe(result);
  });
});

test("rewriteMenus keeps only changed files, and terminates", () => {
  const menus = new Map([
    ["/EFI/BOOT/grub.cfg", "configfile /boot/grub/grub.cfg\n"],
    ["/boot/grub/grub.cfg", "menuentry 'Rescue' {\n  linux /boot/vmlinuz stagename=rescue\n}\n"],
  ]);
  const once = rewriteMenus(menus);
  expect([...once.keys()]).toEqual(["/boot/grub/grub.cfg"]);
  expect(once.get("/boot/grub/grub.cfg")).toContain(`stagename=rescue ${RESCUE_ARGUMENTS.join(" ")}\n`);
  expect(rewriteMenus(once).size).toBe(0);
});

test("rewriteMenus adds further arguments, which replace those of the same name", () => {
  const menus = new Map([["/g.cfg", "menuentry 'Rescue' {\n  linux /v quiet panic=60\n}\n"]]);
  const text = rewriteMenus(menus, ["console=ttyS0,9600", "a=1", "a=2", "panic=0"]).get("/g.cfg");
  expect(text).toContain(
    `linux /v quiet ${RESCUE_ARGUMENTS[0]} console=tty0 console=ttyS0,9600 a=1 a=2 panic=0\n`,
  );
});

test.each<[text: string, expected: string[] | string]>([
  [" quiet  nomodeset ", ["quiet", "nomodeset"]],
  ["modprobe.blacklist=a,b", ["modprobe.blacklist=a,b"]],
  ["autorun=method:disk", "autorun=method:disk"],
  ["quiet autorun", "autorun"],
  ["a; reboot", "a;"],
  ["a\nlabel", "a\nlabel"],
  ["$x", "$x"],
  ['a="b', 'a="b'],
  ["{", "{"],
  [" ", " "],
  ["x".repeat(1001), "x".repeat(1001)],
])("kernel arguments %j → %j", (text, expected) => {
  const parsed = parseKernelArguments(text);
  expect("words" in parsed ? parsed.words : parsed.given).toEqual(expected);
});

describe("a recovery directory", () => {
  let temp: Temp;
  beforeEach(() => {
    temp = new Temp();
    temp.write("own/tools/run", "run");
    chmodSync(temp.path("own/tools/run"), 0o700);
    temp.write("own/data, №1", "data");
    symlinkSync("../data, №1", temp.path("own/tools/link"));
  });
  afterEach(() => {
    temp[Symbol.dispose]();
  });
  const stage = (): void => stageRecovery(temp.path("own"), temp.path("stage"));

  test("is copied with execute permissions and its own symlinks", () => {
    stage();
    expect(readFileSync(temp.path("stage/tools/link"), "utf8")).toBe("data");
    expect(readlinkSync(temp.path("stage/tools/link"))).toBe("../data, №1");
    expect(statSync(temp.path("stage/tools/run")).mode & 0o777).toBe(0o755);
    expect(statSync(temp.path("stage/data, №1")).mode & 0o777).toBe(0o644);
    expect(statSync(temp.path("stage/tools")).mode & 0o777).toBe(0o755);
  });

  test.each<[what: string, spoil: () => unknown, message: RegExp]>([
    ["an absolute symlink", () => symlinkSync("/etc/passwd", temp.path("own/x")), /symlink to \/etc\/passwd/],
    ["a symlink outside", () => symlinkSync("../../x", temp.path("own/tools/x")), /outside/],
    ["a symlink to itself from outside", () => symlinkSync("../own/x", temp.path("own/x")), /outside/],
    ["a named pipe", () => Bun.spawnSync(["mkfifo", temp.path("own/x")]), /named pipe/],
    ["a name with a newline", () => temp.write("own/a\nb", ""), /control character/],
    [
      "too much data",
      () => {
        // Most probably not the first to be copied: that takes long.
        truncateSync(temp.write("own/x", ""), 2 ** 30);
        for (let number = 0; number < 30; number++) temp.write(`own/${number}`, "x");
      },
      /more than 1.0 GiB/,
    ],
  ])("is refused with %s", async (_what, spoil, message) => {
    spoil();
    expect((await failureOf(async () => stage())).message).toMatch(message);
  });
});

test("parseFound", () => {
  expect(parseFound(`note\n'/a b'\n'/it'"'"'s'\n'/two\nlines'\n`)).toEqual(["/a b", "/it's", "/two\nlines"]);
});

test.each([
  ["Creation Time: 2026112506542700\nModif. Time  : 2026112506542701\n", "2026112506542701"],
  ["Creation Time: 2026112506542700\nModif. Time  : 0000000000000000\n", "2026112506542700"],
  ["Volume Id    : X\n", undefined],
])("parseVolumeDate %j", (text, date) => {
  expect(parseVolumeDate(text)).toBe(date);
});

describe("an ISO", () => {
  let temp: Temp;
  beforeEach(() => {
    temp = new Temp();
  });
  afterEach(() => {
    temp[Symbol.dispose]();
  });

  const MENUS = {
    "syslinux/isolinux.cfg":
      "label rescue\n kernel /boot/vmlinuz\n append initrd=/boot/full.cz stagename=rescue # \xe9\n",
    "boot/grub/grub.cfg": "menuentry 'Rescue' {\n  linux /boot/vmlinuz stagename=rescue\n}\n",
  };
  const DISK = { ".disk/arch": "x86_64\n", ".disk/info": "Rescue x86_64 build\n", rescue: "hsqs" };

  function makeIso(name: string, files: Record<string, string>): string {
    temp.directory("tree");
    for (const [file, text] of Object.entries(files)) temp.write(`tree/${file}`, Buffer.from(text, "latin1"));
    const iso = temp.path(name);
    const argv = [
      "xorriso",
      "-no_rc",
      "-outdev",
      `stdio:${iso}`,
      "-volid",
      "NAME",
      "-map",
      temp.path("tree"),
      "/",
    ];
    const made = Bun.spawnSync([...argv, "-commit"], { stderr: "pipe" });
    if (made.exitCode !== 0) throw new Error(made.stderr.toString());
    return iso;
  }

  const options = (source: string, asRoot = true) => ({
    source,
    target: temp.path("new, ü.iso"),
    autorun: "#!/bin/bash\necho ü\n",
    scratch: temp.directory("scratch"),
    asRoot,
  });
  const repack = (source: string) => repackIso(options(source));

  /** Runs `repackIso` with the test's directory `bin` first in PATH, or alone. */
  function repackElsewhere(source: string, asRoot: boolean, alone = false): unknown {
    const PATH = [temp.directory("bin"), ...(alone ? [] : [process.env["PATH"]])].join(":");
    const runner = join(import.meta.dir, "iso-repack.ts");
    const argv = [process.execPath, runner, JSON.stringify(options(source, asRoot))];
    const { stdout, stderr } = Bun.spawnSync(argv, { env: { ...process.env, PATH }, stderr: "pipe" });
    expect(stderr.toString()).toBe("");
    return JSON.parse(stdout.toString());
  }

  /** Contents of a script on the test's ISO. */
  function script(iso: string): string {
    const copy = temp.path(`${basename(iso)}.autorun`);
    const argv = [
      "xorriso",
      "-no_rc",
      "-indev",
      iso,
      "-osirrox",
      "on",
      "-extract",
      "/recovery/autorun",
      copy,
    ];
    expect(Bun.spawnSync(argv, { stderr: "ignore" }).exitCode).toBe(0);
    return copy;
  }

  function program(name: string, text: string): void {
    chmodSync(temp.write(`bin/${name}`, `#!/bin/sh\n${text}`), 0o755);
  }

  const withXorriso = testWith("xorriso");

  withXorriso("is repacked by xorriso", async () => {
    const source = makeIso("a 'b', ü.iso", { ...DISK, ...MENUS });
    const before = readFileSync(source);
    expect(await repack(source)).toEqual({ by: "xorriso", arch: "x86_64" });
    expect(readFileSync(source).equals(before)).toBe(true);
    const target = temp.path("new, ü.iso");
    expect(statSync(target).mode & 0o777).toBe(0o600);

    const was = await inspectIso(source, temp.directory("s1"));
    const now = await inspectIso(target, temp.directory("s2"));
    expect(now).toEqual({ ...was, menus: new Map([...was.menus, ...rewriteMenus(was.menus)]) });
    expect(now.info).toBe("Rescue x86_64 build");
    expect(now.menus.get("/syslinux/isolinux.cfg")).toContain("\xe9 autorun=");
    expect(readFileSync(script(target), "utf8")).toBe("#!/bin/bash\necho ü\n");
    expect(statSync(script(target)).mode & 0o777).toBe(0o755);

    // A prepared one gets the new script.
    const again = { source: target, target: temp.path("again.iso"), scratch: temp.directory("again") };
    await repackIso({ ...again, autorun: "new", asRoot: true });
    expect(readFileSync(script(again.target), "utf8")).toBe("new");
  });

  withXorriso("gets the user's files and kernel arguments; an own autorun is beside the runner", async () => {
    const source = makeIso("source.iso", { ...DISK, ...MENUS });
    temp.write("own/autorun", "mine");
    temp.write("own/sub dir/data", "data");
    await repackIso({ ...options(source), recovery: temp.path("own"), append: ["quiet"] });
    const target = temp.path("new, ü.iso");
    const now = await inspectIso(target, temp.directory("s2"));
    for (const menu of now.menus.values()) expect(menu).toContain(`${RESCUE_ARGUMENTS.join(" ")} quiet\n`);
    const out = temp.path("out");
    const argv = ["xorriso", "-no_rc", "-indev", target, "-osirrox", "on", "-extract", "/recovery", out];
    expect(Bun.spawnSync(argv, { stderr: "ignore" }).exitCode).toBe(0);
    expect(readFileSync(join(out, "autorun"), "utf8")).toBe("mine");
    expect(readFileSync(join(out, "vm-runner"), "utf8")).toBe("#!/bin/bash\necho ü\n");
    expect(readFileSync(join(out, "sub dir/data"), "utf8")).toBe("data");
    for (const name of ["autorun", "vm-runner"]) expect(statSync(join(out, name)).mode & 0o777).toBe(0o755);
    temp.write("own/vm-runner", "");
    const again = { ...options(source), scratch: temp.directory("scratch 2"), target: temp.path("no.iso") };
    const error = await failureOf(() => repackIso({ ...again, recovery: temp.path("own") }));
    expect(error.message).toContain("vm-runner");
    expect(existsSync(temp.path("no.iso"))).toBe(false);
  });

  withXorriso("is repacked by alt2deploy where that is installed, but not as root", () => {
    const source = makeIso("source.iso", { ...DISK, ...MENUS });
    program(
      "alt2deploy",
      `printf '%s\\n' "$@" >args; cat "$2/autorun" >>args; test -x "$2/autorun" && echo made >"$5"`,
    );
    expect(repackElsewhere(source, false)).toEqual({ by: "alt2deploy", arch: "x86_64" });
    expect(readFileSync(temp.path("args"), "utf8")).toBe(
      `-r\n${temp.path("scratch/stage")}\n--\n${source}\n./new, ü.iso\n#!/bin/bash\necho ü\n`,
    );
    rmSync(temp.path("scratch"), { recursive: true });
    rmSync(temp.path("new, ü.iso"));
    expect(repackElsewhere(source, true)).toEqual({ by: "xorriso", arch: "x86_64" });
  });

  withXorriso.each([
    ["that fails", "echo made >$5; echo no >&2; exit 3", /alt2deploy exited with status 3:\n {2}no/],
    ["that writes no file", "exit 0", /alt2deploy wrote no/],
  ])("fails with an alt2deploy %s", (_what, text, message) => {
    const source = makeIso("source.iso", { ...DISK, ...MENUS });
    program("alt2deploy", text);
    expect(repackElsewhere(source, false)).toMatchObject({
      code: "io",
      message: expect.stringMatching(message),
    });
    expect(existsSync(temp.path("new, ü.iso"))).toBe(false);
  });

  withXorriso.each([
    "libburn : FATAL : Cannot write desired amount of data. (No space left on device)",
    "xorriso : FAILURE : Image size 41152s exceeds free space on media 10208s",
  ])("fails on a full disk: %s", (words) => {
    const source = makeIso("source.iso", { ...DISK, ...MENUS });
    const full = `echo "${words}" >&2; exit 5`;
    program("xorriso", `case "$*" in *-commit*) ${full};; esac; exec ${Bun.which("xorriso")} "$@"`);
    expect(repackElsewhere(source, true)).toMatchObject({ code: "cannotCreate" });
  });

  withXorriso("needs xorriso", () => {
    const source = makeIso("source.iso", { ...DISK, ...MENUS });
    expect(repackElsewhere(source, true, true)).toMatchObject({
      code: "unavailable",
      hint: expect.stringMatching(/install xorriso/),
    });
  });

  withXorriso.each([
    ["no .disk/arch", { ...DISK, ".disk/arch": undefined }, /no \.disk\/arch/],
    ["no .disk/info", { ...DISK, ".disk/info": undefined }, /no \.disk\/info/],
    ["no rescue", { ...DISK, rescue: undefined, altinst: "x" }, /no rescue or live/],
    ["another architecture", { ...DISK, ".disk/arch": "e2kv4\n" }, /"e2kv4"/],
    ["no menu", DISK, /none of its boot menus/],
  ])("rejects %s", async (_what, files, message) => {
    const kept = Object.entries(files).filter((entry): entry is [string, string] => entry[1] !== undefined);
    const error = await failureOf(() => repack(makeIso("source.iso", Object.fromEntries(kept))));
    expect([error.code, error.message]).toEqual(["io", expect.stringMatching(message)]);
    expect(existsSync(temp.path("new, ü.iso"))).toBe(false);
  });

  test("rejects a missing file", async () => {
    expect((await failureOf(() => repack(temp.path("none.iso")))).code).toBe("noInput");
  });
  test("rejects a directory", async () => {
    expect((await failureOf(() => repack(temp.top))).code).toBe("noInput");
  });
  test.each([0, 5, 40_000])("rejects another file of %d bytes", async (size) => {
    const error = await failureOf(() => repack(temp.write("x.iso", new Uint8Array(size))));
    expect([error.code, error.message]).toEqual(["io", expect.stringMatching(/no ISO 9660 filesystem/)]);
  });
});
