import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, existsSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { loadSettings, type Loaded } from "../../src/config/load.ts";
import { type Sources } from "../../src/config/load-layer.ts";
import { DISK_BUSES } from "../../src/machine/types.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { sourcesFor } from "../fixtures/sources.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  temp.directory("home/.config");
  temp.directory("host");
});
afterEach(() => temp[Symbol.dispose]());

/** No `/etc/vm-unit-test.conf` exists. */
const PROG = "vm-unit-test";

function load(changes: Partial<Sources> = {}): Promise<Loaded> {
  const guestEnv = temp.path("host/guest.env");
  return loadSettings(
    sourcesFor({
      prog: PROG,
      home: temp.path("home"),
      hostdir: temp.path("host"),
      guestEnv: existsSync(guestEnv) ? guestEnv : undefined,
      env: { PATH: process.env.PATH, FROM_ENV: "from the environment" },
      mayUseBash: true,
      ...changes,
    }),
  );
}

const userConf = (text: string, mode?: number): string => temp.write(`home/.config/${PROG}.conf`, text, mode);
const guestEnv = (text: string, mode?: number): string => temp.write("host/guest.env", text, mode);

describe("layers", () => {
  test("without files uses the defaults", async () => {
    const { settings, origins } = await load();
    expect(settings).toMatchObject({ CORES: 2, MEMORY: 2048, PORT: 5900, GUESTNAME: "" });
    expect(new Set(Object.values(origins).map(({ kind }) => kind))).toEqual(new Set(["default"]));
  });

  test("JAIL in the VM's own file is ignored: it may come from elsewhere", async () => {
    guestEnv("JAIL=off\n");
    expect((await load()).settings.JAIL).toBe("auto");
  });

  test("uses a UUID only from the VM's own guest.env", async () => {
    const [own, other] = ["123e4567-e89b-42d3-a456-426614174000", "00000000-0000-4000-8000-000000000000"];
    userConf(`UUID="${other}"\nUUID_FORMER="nonsense"\n`);
    expect((await load()).settings).toMatchObject({ UUID: "", UUID_FORMER: [] });
    guestEnv(`UUID="${own}"\n`);
    expect((await load()).settings).toMatchObject({ UUID: own, UUID_FORMER: [] });
  });

  test("each overrides the one before: /etc, the user's, the VM's, the command line", async () => {
    // A PROG with .. moves /etc/PROG.conf into the sandbox, and ~/.config/PROG.conf below HOME.
    const prog = `..${temp.top}/system`;
    const system = temp.write("system.conf", "CORES=3\nSOCKETS=3\nMEMORY=3G\nPORT=3333\n");
    const user = temp.write(`home${temp.top}/system.conf`, "SOCKETS=4\nMEMORY=4G\nPORT=4444");
    const guest = guestEnv("\nMEMORY=5G\nPORT=5555\n");
    const { settings, origins } = await load({ prog, options: { PORT: "6666" } });
    expect(settings).toMatchObject({ CORES: 3, SOCKETS: 4, MEMORY: 5120, PORT: 6666 });
    const paths = { [`/etc/${prog}.conf`]: system, [user]: user, [guest]: guest };
    const shown = (["CORES", "SOCKETS", "MEMORY", "PORT", "HOST"] as const).map((name) => {
      const origin = origins[name];
      return origin.kind === "file" ? [paths[origin.file], origin.line] : [origin.kind];
    });
    expect(shown).toEqual([[system, 1], [user, 1], [guest, 2], ["option"], ["default"]]);
  });

  test("uses the named guest.env: WORKDIR's, not HOSTDIR's", async () => {
    guestEnv("CORES=3\nSOCKETS=3\n");
    const work = temp.write("work/guest.env", "CORES=4\n");
    const { settings } = await load({ guestEnv: work, workdir: temp.path("work") });
    expect(settings).toMatchObject({ CORES: 4, SOCKETS: 1 });
  });

  test("a file can refer to values of weaker layers and to known names", async () => {
    userConf('CORES=3\nSHARES=( a:/x )\nGUESTNAME="$PROG of $HOME"\n');
    guestEnv('SOCKETS=$CORES\nGUESTNAME="$GUESTNAME in $HOSTDIR, $FROM_ENV"\nSHARES+=( "b:$WORKDIR/y" )\n');
    const { settings } = await load({ workdir: "/w" });
    expect(settings).toMatchObject({ CORES: 3, SOCKETS: 3 });
    expect(settings.GUESTNAME).toBe(
      `${PROG} of ${temp.path("home")} in ${temp.path("host")}, from the environment`,
    );
    expect(settings.SHARES.map(({ path }) => path)).toEqual(["/x", "/w/y"]);
  });

  test("a list replaces a list; an empty value disables", async () => {
    userConf("DISKS=( AHCI=1G NVME=2G )\nFORWARDS=tcp::1-:2\nPORT=5901\nSSHKEYS=( /a /b )\nUEFI=1\n");
    guestEnv("DISKS=( VIRT=3G )\nFORWARDS=\nPORT=\nSSHKEYS=()\nUEFI=\n");
    const { settings } = await load();
    expect(settings).toMatchObject({ FORWARDS: [], PORT: undefined, SSHKEYS: [], UEFI: false });
    expect(settings.DISKS.map(({ bus }) => bus)).toEqual(["VIRT"]);
  });

  test("a plain value for a default array is its first element, as in bash", async () => {
    guestEnv("SHARES=a:/x\n");
    const { settings } = await load();
    expect(settings.SHARES.map(({ tag }) => tag)).toEqual(["a", "in", "out"]);
  });

  test("uses the last of several assignments, with its line", async () => {
    guestEnv("CORES=3\nCORES=many\nCORES=4\n");
    const { settings, origins } = await load();
    expect(settings.CORES).toBe(4);
    expect(origins.CORES).toMatchObject({ line: 3 });
  });

  test("ignores unknown names", async () => {
    guestEnv("SOMETHING=else\nconstructor=1\n__proto__=2\nCORES=3\n");
    expect((await load()).settings.CORES).toBe(3);
  });
});

describe("from the command line", () => {
  test("adds -f -i -s to those of files", async () => {
    guestEnv('FORWARDS="hostfwd=tcp::1-:2,udp::3-:4"\nIMAGES=( AHCI=/a )\nSHARES=( a:/a )\n');
    const { settings } = await load({
      additions: { FORWARDS: ["tcp::5-:6"], IMAGES: ["VIRT=/b", "SCSI=/c"], SHARES: ["b:/b"] },
    });
    expect(settings.FORWARDS).toEqual(["hostfwd=tcp::1-:2", "hostfwd=udp::3-:4", "hostfwd=tcp::5-:6"]);
    expect(settings.IMAGES.map(({ path }) => path)).toEqual(["/a", "/b", "/c"]);
    expect(settings.SHARES.map(({ tag }) => tag)).toEqual(["a", "b"]);
  });

  test("an empty value clears the list first", async () => {
    guestEnv("SHARES=( a:/a )\nFORWARDS=tcp::1-:2\n");
    const { settings } = await load({
      options: { SHARES: [], FORWARDS: [] },
      additions: { SHARES: ["b:/b"] },
    });
    expect(settings.SHARES.map(({ tag }) => tag)).toEqual(["b"]);
    expect(settings.FORWARDS).toEqual([]);
  });

  test("refuses a duplicate ID (64)", async () => {
    const error = await failureOf(() => load({ additions: { SHARES: ["out:/x"] } }));
    expect(error.exitCode).toBe(64);
    expect(error.message).toContain("'out'");
  });
});

describe("lost settings are an error (78), not a VM without disks:", () => {
  test.each(["", "\n \n", "\0\0\0"])("%j", async (text) => {
    guestEnv(text);
    const error = await failureOf(() => load());
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain("it is empty");
  });

  test("no IMAGES but a working disk; without one that is valid", async () => {
    guestEnv("MEMORY=1G");
    const error = await failureOf(() => load({ workingDisks: ["disk-0.img"] }));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain("it has no IMAGES=, and there is disk-0.img");
    await load();
    guestEnv("IMAGES=()");
    await load({ workingDisks: ["disk-0.img"] });
  });

  test("no guest.env but a working disk", async () => {
    const error = await failureOf(() => load({ workingDisks: ["disk-0.img"] }));
    expect(error.message).toContain("it is missing, and there is disk-0.img");
  });

  test("suggests the settings of the last snapshot, if there is one", async () => {
    guestEnv("");
    const before = await failureOf(() => load());
    expect(before.hint).not.toContain("backups");
    temp.write("host/backups/LAST/guest.env", "MEMORY=1G\n");
    const error = await failureOf(() => load());
    expect(error.hint).toContain(
      `cp ${temp.path("host/backups/LAST/guest.env")} ${temp.path("host/guest.env")}`,
    );
  });
});

describe("RESCUE follows the architecture", () => {
  test.each([
    ["# nothing", "rescue-x86_64"],
    ["QEMUARCH=i386", "rescue-i386"],
    ["QEMUARCH=i686", "rescue-i386"],
    ["QEMUARCH=athlon", "rescue-i386"],
    ["RESCUE=mine\nQEMUARCH=i386", "mine"],
    ["RESCUE=rescue-x86_64\nQEMUARCH=i386", "rescue-x86_64"],
  ])("%j: %s", async (text, rescue) => {
    guestEnv(text);
    expect((await load()).settings.RESCUE).toBe(rescue);
  });

  test("-a: rescue-i386", async () => {
    expect((await load({ options: { QEMUARCH: "i386" } })).settings.RESCUE).toBe("rescue-i386");
  });
});

describe("a host whose architecture has no guests", () => {
  test("is an error (69)", async () => {
    const error = await failureOf(() => load({ hostArch: "s390x" }));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("s390x");
  });
  test("can use another one", async () => {
    expect((await load({ hostArch: "s390x", options: { QEMUARCH: "i386" } })).settings.QEMUARCH).toBe("i386");
  });
});

describe("errors (78)", () => {
  test("reports all at once, each with file, line, value and allowed values", async () => {
    const user = userConf("CORES=many\nMEMORY=2G\n\nPORT=99999\n");
    const guest = guestEnv("GUESTNAME=x\nDISKS=( AHCI=1G IDE=2G )\nSHARES=(\n  a:/x\n  a:/y\n)\n");
    const error = await failureOf(load);
    expect(error.exitCode).toBe(78);
    expect(error.message.split("\n").map((line) => line.trim())).toEqual([
      "the settings have 4 errors:",
      `${user}:1: CORES='many' is not allowed`,
      "allowed: a whole number from 1 to 512",
      `${user}:4: PORT='99999' is not allowed`,
      "allowed: a whole number from 1 to 65535, or empty",
      `${guest}:2: DISKS='IDE=2G' is not allowed`,
      `allowed: TYPE=SIZE, TYPE one of ${DISK_BUSES.join(" ")}, SIZE like 30G or 512M`,
      `${guest}:3: SHARES='a' is not allowed`,
      "allowed: each ID once",
    ]);
  });

  test("reports also those of a file that cannot be parsed", async () => {
    const user = userConf("GUESTNAME='x\n");
    const guest = guestEnv("CORES=0\n");
    const { message } = await failureOf(load);
    expect(message).toContain(`${user}:1: ' without its end`);
    expect(message).toContain(`${guest}:1: CORES='0'`);
  });

  test.each([
    ["GUESTNAME=$HOEM", "HOEM is not set"],
    ["GUESTNAME=$constructor", "constructor is not set"],
    ["GUESTNAME=$toString", "toString is not set"],
    ["GUESTNAME=$hasOwnProperty", "hasOwnProperty is not set"],
    ["GUESTNAME=$__proto__", "__proto__ is not set"],
    ["CORES=3\r\n", "carriage return"],
    ["CORES=3\0", "NUL"],
  ])("%j: %s", async (text, message) => {
    const file = guestEnv(text);
    const error = await failureOf(load);
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(`${file}:1: `);
    expect(error.message).toContain(message);
  });

  test("reports an invalid value that a stronger layer replaces", async () => {
    userConf("CORES=many\n");
    guestEnv("CORES=2\n");
    expect((await failureOf(load)).message).toContain("CORES='many'");
  });

  test("reports unreadable files, and other types of files", async () => {
    guestEnv("x".repeat((1 << 20) + 1));
    expect((await failureOf(load)).message).toContain("larger than 1.0 MiB");
    const error = await failureOf(() => load({ guestEnv: temp.directory("directory") }));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(temp.path("directory"));
  });

  test("reports bytes that are not UTF-8", async () => {
    const file = temp.write("host/guest.env", Buffer.from("GUESTNAME=\xff\n", "latin1"));
    const error = await failureOf(load);
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(`${file}: it is not UTF-8 text`);
  });

  test("keeps a replacement character that is part of the text", async () => {
    guestEnv('GUESTNAME="a\ufffdb"\n');
    expect((await load()).settings.GUESTNAME).toBe("a\ufffdb");
  });

  test("does not wait for a named pipe", async () => {
    const pipe = temp.path("pipe");
    Bun.spawnSync(["mkfifo", pipe]);
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "../fixtures/load-settings.ts"), pipe], {
      stderr: "ignore",
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    const status = await child.exited;
    clearTimeout(timer);
    expect({ status, signal: child.signalCode }).toEqual({ status: 78, signal: null });
  });
});

describe("settings that need bash", () => {
  const CONDITION = 'if [ "$CORES" = 2 ]; then CORES=5; DISKS=( AHCI=1G "NVME=2G" ); fi\n';

  test("are evaluated by it", async () => {
    userConf(`SOCKETS=2\n${CONDITION}MEMORY=$((2 + 1))G\nGUESTNAME=$(printf 'a\\nb')\nPORT=\n`);
    const { settings, origins } = await load();
    expect(settings).toMatchObject({
      SOCKETS: 2,
      CORES: 5,
      MEMORY: 3072,
      GUESTNAME: "a\nb",
      PORT: undefined,
    });
    expect(settings.DISKS.map(({ bus }) => bus)).toEqual(["AHCI", "NVME"]);
    expect(origins.MEMORY).toMatchObject({ line: 3 });
    expect(origins.HOST).toEqual({ kind: "default" });
  });

  test("in the user's file can start programs", async () => {
    userConf("GUESTNAME=$(cat /proc/sys/kernel/ostype)\n");
    expect((await load()).settings.GUESTNAME).toBe("Linux");
  });

  test("can use weaker layers and known names", async () => {
    userConf('true; SOCKETS=$((CORES + 1)); GUESTNAME="$PROG,$HOME,$HOSTDIR,${#SHARES[@]},${SHARES[0]}"\n');
    const { settings } = await load();
    expect(settings.SOCKETS).toBe(3);
    expect(settings.GUESTNAME).toBe(`${PROG},${temp.path("home")},${temp.path("host")},3,mirror:@MIRROR@`);
  });

  test("can have difficult values", async () => {
    userConf("true; GUESTNAME=$'a\\tb\\n\\'\"\\\\ é $x '; SSHKEYS=( '' $'x\\ny' '*' )\n");
    const { settings, raw } = await load();
    expect(settings.GUESTNAME).toBe("a\tb\n'\"\\ é $x ");
    expect(raw.SSHKEYS).toEqual(["", "x\ny", "*"]);
  });

  test("reports invalid values too, with their line", async () => {
    const file = userConf(`\n${CONDITION}PORT=99999\n`);
    const error = await failureOf(load);
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(`${file}:3: PORT='99999' is not allowed`);
  });

  test("reports bash's error, with the file", async () => {
    const file = userConf("GUESTNAME=$(false)\nexit 3\n");
    const { message, exitCode } = await failureOf(load);
    expect(exitCode).toBe(78);
    expect(message).toContain(`${file}:1: `);
  });

  test.each([
    ["a false condition at the end", 'CORES=3\n[ -n "${XDG-}" ] && SOCKETS=2\n'],
    ["return, as in old files", 'CORES=3\n[ -n "${XDG-}" ] || return 0\nCORES=4\n'],
    ["a function of its own", "double() { CORES=$(($1 * 2)); CORES=3; }\ndouble 1\n"],
    ["local settings of bash", "set +f +u; shopt -s nullglob; IFS=,; CORES=3; unset IFS\n"],
  ])("%s is harmless", async (_title, text) => {
    userConf(text);
    expect((await load()).settings.CORES).toBe(3);
  });

  test("is not run when many VMs are read", async () => {
    const file = userConf(`CORES=3\n${CONDITION}`);
    const error = await failureOf(() => load({ mayUseBash: false }));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(`${file}:2: this needs bash`);
  });

  test("never gets a password in its argument list", async () => {
    const words = "mapfile -d '' WORDS </proc/$$/cmdline; GUESTNAME=\"${WORDS[*]}\"\n";
    userConf(words);
    guestEnv("SPICE_PASSWORD=s3cret\n");
    expect((await load()).settings.GUESTNAME).not.toContain("s3cret");
  });
});

const TEXT = 'touch "$HOME/pwned"; CORES=3\n';
const refused = async (): Promise<string> => {
  const error = await failureOf(load);
  expect(error.exitCode).toBe(78);
  expect(existsSync(temp.path("home/pwned"))).toBe(false);
  return error.message;
};

describe("a file that needs bash is refused (78) where", () => {
  test.each([0o660, 0o620, 0o602, 0o666])("its mode is %o", async (mode) => {
    const file = userConf(TEXT);
    chmodSync(file, mode);
    expect(await refused()).toContain(`${file} is writable by other users`);
  });

  test.each([0o770, 0o707, 0o1777])("its directory's mode is %o", async (mode) => {
    userConf(TEXT);
    chmodSync(temp.path("home/.config"), mode);
    expect(await refused()).toContain(`${temp.path("home/.config")} is writable by other users`);
  });

  const asRoot = test.skipIf(process.getuid!() !== 0);
  asRoot("it belongs to somebody else (needs root)", async () => {
    chownSync(userConf(TEXT), 12345, 12345);
    expect(await refused()).toContain("belongs to another user (uid 12345)");
  });
  asRoot("its directory belongs to somebody else (needs root)", async () => {
    userConf(TEXT);
    chownSync(temp.path("home/.config"), 12345, 12345);
    expect(await refused()).toContain("belongs to another user (uid 12345)");
  });

  test("it is a symlink to such a file", async () => {
    const target = temp.write("open/real", TEXT);
    chmodSync(target, 0o666);
    symlinkSync(target, temp.path(`home/.config/${PROG}.conf`));
    expect(await refused()).toContain("is writable by other users");
  });

  test("it is a symlink, in a directory that others can write, to a file of this user", async () => {
    const target = temp.write("ours/script", TEXT);
    chmodSync(temp.path("home/.config"), 0o777);
    symlinkSync(target, temp.path(`home/.config/${PROG}.conf`));
    expect(await refused()).toContain("is writable by other users");
  });

  test("accepts a file that others can read", async () => {
    userConf("true; CORES=3\n", 0o644);
    chmodSync(temp.path("home/.config"), 0o755);
    expect((await load()).settings.CORES).toBe(3);
  });

  test("reads plain assignments from any file", async () => {
    chmodSync(userConf("CORES=3\n"), 0o666);
    expect((await load()).settings.CORES).toBe(3);
  });
});

describe("a VM's guest.env is read literally, without bash:", () => {
  test.each([
    ["touch PWNED"],
    ["/usr/bin/touch PWNED"],
    ["command touch PWNED"],
    ["command -p touch PWNED"],
    ["PATH=/usr/bin:/bin; touch PWNED"],
    ["exec touch PWNED"],
    ["$(touch PWNED)"],
    ["`/bin/touch PWNED`"],
    [": >PWNED"],
    [": >>PWNED"],
    [": &>PWNED"],
    [": <>PWNED"],
    ["printf x >|PWNED"],
    ["eval 'echo x > PWNED'"],
    [". /bin/../PWNED.sh"],
    ["source PWNED.sh"],
    ["set +r; touch PWNED"],
    ["set +o restricted; : >PWNED"],
    ["shopt -u restricted_shell; : >PWNED"],
    ["bash -c 'touch PWNED'"],
    ["hash -p /usr/bin/touch touch; touch PWNED"],
    ["enable -f /lib/x.so touch"],
    ["BASH_CMDS[touch]=/usr/bin/touch; touch PWNED"],
    ["trap 'touch PWNED' EXIT"],
    ["trap ': >PWNED' EXIT; CORES=3"],
    ["printf() { : >PWNED; }; CORES=3"],
    ["declare() { : >PWNED; }; CORES=3"],
    ["coproc /usr/bin/touch PWNED"],
    ["history -w PWNED; fc -l"],
    ["cd /; CORES=3; exec /usr/bin/touch PWNED"],
  ])("%s", async (text) => {
    temp.write("PWNED.sh", `: >${temp.path("PWNED")}\n`);
    guestEnv(`CORES=3\n${text.replaceAll("PWNED", temp.path("PWNED"))}\n`);
    expect((await failureOf(load)).exitCode).toBe(78);
    expect(existsSync(temp.path("PWNED"))).toBe(false);
  });

  test("a condition is an error (78) with its line, and the hint names the user's own settings", async () => {
    const file = guestEnv("CORES=3\nif true; then CORES=4; fi\n");
    const { exitCode, message } = await failureOf(load);
    expect(exitCode).toBe(78);
    expect(message).toContain(`${file}:2: `);
    expect(message).toContain(`~/.config/${PROG}.conf`);
  });

  test("a symlink is not followed (78)", async () => {
    const file = temp.path("host/guest.env");
    symlinkSync(temp.write("elsewhere", "CORES=7\n"), file);
    const { exitCode, message } = await failureOf(() => load({ guestEnv: file }));
    expect(exitCode).toBe(78);
    expect(message).toContain("symbolic link");
  });

  test("a loop is not run", async () => {
    guestEnv("while :; do :; done\n");
    expect((await failureOf(load)).exitCode).toBe(78);
  });
});

describe("settings that depend on the guest's architecture", () => {
  test.each([
    ["x86_64", "AHCI", false],
    ["i386", "AHCI", false],
    ["aarch64", "VIRT", true],
    ["armhf", "VIRT", true],
    ["riscv64", "VIRT", false],
    ["ppc64le", "VIRT", false],
  ] as const)("%s: disks on %s, UEFI %p", async (arch, bus, uefi) => {
    const { settings } = await load({ options: { QEMUARCH: arch } });
    expect(settings.DISKS.map((disk) => disk.bus)).toEqual([bus]);
    expect(settings.UEFI).toBe(uefi);
    expect(settings.RESCUE).toBe(`rescue-${arch}`);
  });
  test("keeps chosen disks", async () => {
    const { settings } = await load({ options: { QEMUARCH: "aarch64", DISKS: "NVME=1G" } });
    expect(settings.DISKS).toEqual([{ bus: "NVME", sizeBytes: 1 << 30 }]);
  });
  test.each([
    ["aarch64", "", "boot by UEFI only"],
    ["ppc64le", "1", "have no UEFI"],
  ])("%s: refuses a typed UEFI=%j (64)", async (arch, uefi, words) => {
    const error = await failureOf(() => load({ options: { QEMUARCH: arch, UEFI: uefi } }));
    expect(error.exitCode).toBe(64);
    expect(error.message).toContain(words);
  });
});
