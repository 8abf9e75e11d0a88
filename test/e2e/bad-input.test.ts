/** Mistakes of the user: each is one clear error with the right exit status, and changes nothing. */
import { beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { binary, guests, type Result, type Sandbox } from "./harness.ts";
import { configure, expectError, isRoot, listing, names, sampled, smallSandbox, suite } from "./tools.ts";

let iso: Guests;

/** Runs a command that must fail without changing anything; `setUp` comes before. */
async function refused(
  args: readonly string[],
  status: number,
  message: RegExp,
  options: Parameters<Sandbox["vm"]>[1] = {},
  setUp: (box: Sandbox) => unknown = () => {},
): Promise<Result> {
  using box = smallSandbox();
  await setUp(box);
  const before = [...listing(box.host), ...listing(box.tmp)];
  const result = await box.vm(args, { cwd: box.host, ...options });
  expectError(result, status, message);
  expect([...listing(box.host), ...listing(box.tmp)]).toEqual(before);
  expect(await box.leftovers()).toEqual([]);
  return result;
}

/** A PATH with all required programs except these. */
function pathWithout(box: Sandbox, ...missing: string[]): { PATH: string } {
  const bin = join(box.top, "bin");
  mkdirSync(bin);
  for (const name of ["bash", "cat", "dd", "pigz", "qemu-img", "qemu-system-x86_64", "setpriv", "sha256sum"])
    if (!missing.includes(name)) symlinkSync(Bun.which(name)!, join(bin, name));
  return { PATH: bin };
}

const make = (box: Sandbox): Promise<Result> => box.ok(["create", "G", iso.installerIso]);

const makeAndBackUp = (box: Sandbox): Promise<Result> =>
  box.ok(["@create", "G", iso.installerIso, "@backup"]);

suite("bad input", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  describe("on the command line: 64, before the batch starts", () => {
    const table: [string[], RegExp][] = [
      [["--bogus"], /unknown option --bogus/],
      [["-X"], /unknown option -X/],
      [["-kX"], /unknown option -X/],
      [["--memory"], /--memory needs a value/],
      [["-m"], /-m needs a value/],
      [["--uefi=1"], /--uefi takes no value/],
      [["--h"], /ambiguous|--h/],
      [["--disks=FOO=1G"], /--disks: 'FOO=1G'/],
      [["--disks=AHCI="], /--disks: 'AHCI='/],
      [["--disks=AHCI"], /--disks/],
      [["--disks=AHCI=0"], /--disks/],
      [["--disks=AHCI=-1G"], /--disks/],
      [["--disks=AHCI=1G,,VIRT=x"], /--disks/],
      [["--cores=many"], /--cores: 'many'/],
      [["--cores=0"], /--cores: '0'/],
      [["--sockets="], /--sockets/],
      [["--memory=lots"], /--memory: 'lots'/],
      [["--memory="], /--memory/],
      [["--port=99999"], /--port: '99999'/],
      [["--port=-1"], /--port/],
      [["--timeout=soon"], /--timeout/],
      [["--arch=z80"], /--arch: 'z80'/],
      [["--host=a b"], /--host/],
      [["--host=a,b=c"], /--host/],
      [["--hostdir="], /--hostdir/],
      [["--forward=tcp:22"], /--forward: 'tcp:22'/],
      [["--forward=tcp::70000-:22"], /--forward/],
      [["--forward=tcp:[::1]:2222-:22"], /--forward: 'tcp:\[::1\]:2222-:22'[^]*IPv4/],
      [
        ["--forward=tcp::2222-:22", "-f", "tcp:127.0.0.1:2222-:80"],
        /2222-:80'[^]*each port of an address once/,
      ],
      [["--share=nocolon"], /--share: 'nocolon'/],
      [["--share=a,b:/usr"], /--share/],
      [["--share=x:"], /--share/],
      [["--image=/x.img"], /--image/],
      [["--image=AHCI="], /--image/],
      [["--rescue=../x"], /--rescue/],
      [["create"], /GUESTNAME is missing/],
      [["@create", "A", "x.iso", "surplus"], /one argument too many/],
      [["backup", "A", "B", "C"], /one argument too many/],
      [["destroy", "now"], /one argument too many/],
      [["@restore", "A", "B"], /one argument too many/],
      [["@nonsense"], /unknown command 'nonsense'/],
      [["@create", "A", "@nonsense"], /'@nonsense' is not a command, and create takes no label/],
      [["@create", "A", "@destory"], /'@destory' is not a command[^]*destroy/],
      [["@run", "@constructor"], /unknown command 'constructor'/],
      [["destroy", "--bogus"], /unknown option --bogus/],
      [["destroy", "--force=yes"], /takes no value/],
      [["@create", "A", "-m", "1G", "@run"], /in a batch the option -m stands first/],
      [["@create", "A", "@backup", "../x"], /'\.\.\/x' cannot be a snapshot's name/],
      [["@create", "A", "@backup", "x".repeat(201)], /name of 201 bytes is too long[^]*at most 200/],
      [["@create", "A", "@restore", "../x"], /'\.\.\/x' cannot be a snapshot's name/],
    ];
    test.each(sampled(table, 1, 8))("%j", async (args, message) => {
      const result = await refused(args, 64, message);
      expect(result.stderr).not.toContain("Executing");
    });

    test("reports several mistakes at once", async () => {
      const { stderr } = await refused(["--cores=many", "--memory=lots", "--port=x", "run"], 64, /many/);
      for (const value of ["'many'", "'lots'", "'x'"]) expect(stderr).toContain(value);
    });
  });

  describe("a mistyped command suggests the nearest, and starts nothing", () => {
    test.each(
      sampled([
        ["bakcup", "backup"],
        ["resotre", "restore"],
        ["creat", "create"],
        ["rnu", "run"],
        ["Destroy", "destroy"],
      ]),
    )("%s", async (word, command) => {
      const { stderr } = await refused([word], 66, /neither a command nor a CD image/, {}, makeAndBackUp);
      expect(stderr).toContain(`did you mean: vm ${command}\n`);
      const inBatch = await refused([`@${word}`, "@run"], 64, /unknown command/, {}, makeAndBackUp);
      expect(inBatch.stderr).toContain(`did you mean: vm @${command} @run\n`);
    });

    test("without working files restores nothing for it", async () => {
      await refused(["bakcup"], 66, /neither/, {}, (box) =>
        box.ok(["@create", "G", iso.installerIso, "@backup", "@destroy"]),
      );
    });
  });

  describe("in files: 78 with file and line", () => {
    const table: [string, RegExp][] = [
      ["MEMORY=1G\nCORES=many\n", /guest\.env:2: CORES='many' is not allowed/],
      ["PORT=99999\n", /guest\.env:1: PORT='99999'/],
      ['# one\n\nIMAGES=(\n  "AHCI=qcow2=disk-0.img"\n  "FOO=x"\n)\n', /guest\.env:[35]: .*FOO=x/],
      ['SHARES=( "a:/usr" "a:/tmp" )\n', /guest\.env:1: SHARES='a'/],
      ["GUESTNAME='open\n", /guest\.env:1: /],
      ["MEMORY=1G extra\n", /guest\.env:1: /],
      ["touch pwned\n", /guest\.env:1: /],
      ["MEMORY=$(touch pwned; echo 1G)\n", /guest\.env:1: /],
      ["MEMORY=`touch pwned`\n", /guest\.env:1: /],
      ["if /usr/bin/touch pwned; then MEMORY=1G; fi\n", /guest\.env:1: /],
      ["exec 3>pwned\n", /guest\.env:1: /],
      ["cd /; . ./etc/profile\n", /guest\.env:1: /],
      ["MEMORY=1G\0\n", /guest\.env/],
    ];
    test.each(sampled(table, 1, 4))("%j", async (text, message) => {
      await refused(["run"], 78, message, {}, (box) => box.write("guest.env", text));
      await refused(["create", "G"], 78, message, {}, (box) => box.write("guest.env", text));
    });

    test("reports all of them, from every file", async () => {
      const { stderr } = await refused(["run"], 78, /3 errors/, {}, (box) => {
        configure(box, "PORT=\nCORES=many\n");
        box.write("guest.env", "MEMORY=lots\nPORT=0\n");
      });
      expect(stderr).toMatch(/vm\.conf:2: CORES='many'/);
      expect(stderr).toMatch(/guest\.env:1: MEMORY='lots'/);
      expect(stderr).toMatch(/guest\.env:2: PORT='0'/);
    });

    test("vm.defaults", async () => {
      await refused(["run"], 78, /vm\.defaults:2: /, {}, async (box) => {
        await make(box);
        box.write("vm.defaults", "-device x\n'open\n");
      });
    });

    test("a disk image instead of settings", async () => {
      await refused(["run"], 78, /guest\.env/, {}, (box) => cpSync(iso.linuxIso, box.path("guest.env")));
    });

    test("vm -h works nevertheless, reports it, and evaluates nothing", async () => {
      using box = smallSandbox();
      box.write("guest.env", "touch pwned\nMEMORY=$(touch pwned)\n");
      const { stdout } = await box.ok(["-h"]);
      expect(stdout).toContain("--memory");
      expect(stdout).toMatch(/guest\.env/);
      expect(names(box.host)).toEqual(["guest.env"]);
    });
  });

  describe("create refuses what qemu or the host would refuse at the first run", () => {
    const table: [string[], number, RegExp][] = [
      [[`--disks=${"VIRT=1M,".repeat(50)}`], 64, /50 places for disks, the limit is 40/],
      [["--cores=256"], 64, /256 processors, the limit is 255/],
      [["--port=2222", "--forward=tcp::2222-:22"], 75, /port 2222 is requested twice/],
    ];
    test.each(table)("%j", async (options, status, message) => {
      await refused([...options, "create", "G"], status, message);
    });

    test("run --wait=ssh without a forward to the guest's SSH starts nothing (64)", async () => {
      const line = ["run", "--detach", "--wait=ssh"];
      const { stderr } = await refused(line, 64, /no port of this host is forwarded/, {}, makeAndBackUp);
      expect(stderr).toContain("vm run --detach --ssh --wait=ssh\n");
    });

    test("names a missing TMPDIR", async () => {
      await refused(
        ["restore"],
        73,
        /\/nowhere: no such file/,
        { env: { TMPDIR: "/nowhere" } },
        makeAndBackUp,
      );
    });
  });

  describe("names of missing things: 66", () => {
    const table: [string[], RegExp][] = [
      [["run", "nowhere.iso"], /no such CD image: nowhere\.iso/],
      [["nowhere.iso"], /nowhere\.iso/],
      [["run", "/"], /it is a directory/],
      [["restore"], /has no snapshots/],
      [["restore", "S7"], /no such snapshot: S7/],
      [["--hostdir=nowhere", "run"], /no such directory: .*nowhere/],
      [["--image=VIRT=nowhere.img", "run"], /no such disk image/],
      [["--image=VIRT=/", "run"], /directory/],
      [["--share=x:/nowhere", "run"], /share 'x'.*\/nowhere/],
    ];
    test.each(sampled(table, 1, 3))("%j", async (args, message) => {
      await refused(args, 66, message, {}, make);
    });

    test.each([["run"], ["backup"], ["restore"]])("%s in a directory without a VM", async (command) => {
      await refused([command], 66, /there is no VM in/);
    });

    test("create with a missing ISO", async () => {
      await refused(["create", "G", "nowhere.iso"], 66, /no such CD image: nowhere\.iso/);
      await refused(["create", "G", "/dev/null"], 66, /\/dev\/null/);
    });

    test("create with an unreadable ISO", async () => {
      using box = smallSandbox();
      const [cd, program] = [join(box.top, "secret.iso"), join(box.top, "vm")];
      const hidden = join(box.top, "hidden");
      mkdirSync(hidden);
      cpSync(iso.haltIso, join(hidden, "secret.iso"));
      cpSync(iso.haltIso, cd);
      cpSync(binary, program);
      for (const one of [cd, hidden]) chmodSync(one, 0);
      // Root can read everything, so this runs as another user.
      const as = isRoot
        ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program]
        : [program];
      if (isRoot) await Bun.$`chown 65534 ${[box.top, box.host, box.tmp, box.home]}`;
      for (const one of [cd, join(hidden, "secret.iso")])
        expectError(
          await box.vm(["create", "G", one], { program: as }),
          66,
          /secret\.iso.*permission denied/i,
        );
      expect([...names(box.host), ...names(box.tmp)]).toEqual([]);
    });
  });

  describe("things that exist already: 73", () => {
    test("working files", () => refused(["create", "G"], 73, /working files/, {}, make));
    test("snapshots", () =>
      refused(["create", "G"], 73, /snapshots/, {}, (box) =>
        box.ok(["@create", "G", "@backup", "@destroy"]),
      ));
    test("a guest.env", () =>
      refused(["create", "G"], 73, /guest\.env/, {}, (box) => box.write("guest.env", "")));
    test("a disk", () =>
      refused(["create", "G"], 73, /disk-3\.img/, {}, (box) => box.write("disk-3.img", "")));
    test("a snapshot of that name", () =>
      refused(["backup", "A"], 73, /A exists already/, {}, (box) =>
        box.ok(["@create", "G", "@backup", "A"]),
      ));
  });

  describe("a missing program: 69", () => {
    test.each(
      sampled<[string[], string]>([
        [["run"], "qemu-system-x86_64"],
        [["create", "H", "-d", "x"].slice(0, 2), "qemu-img"],
        [["backup"], "pigz"],
        [["restore"], "pigz"],
        [["restore"], "dd"],
        [["backup"], "cat"],
        [["backup"], "sha256sum"],
      ]),
    )("%j without %s", async (args, missing) => {
      using box = smallSandbox();
      if (args[0] !== "create") await box.ok(["@create", "G", iso.installerIso, "@backup"]);
      const before = [...listing(box.host), ...listing(box.tmp)];
      const result = await box.vm(args, { env: pathWithout(box, missing) });
      expectError(result, 69, new RegExp(`${missing} is not installed`));
      expect(result.stderr).toMatch(/install .*package|install /);
      expect([...listing(box.host), ...listing(box.tmp)]).toEqual(before);
    });

    test.each(["bash", "setpriv"])("everything else works without %s", async (missing) => {
      using box = smallSandbox();
      await box.ok(["@create", "G", iso.installerIso, "@run", "@run", "@backup", "@restore", "@destroy"], {
        env: pathWithout(box, missing),
      });
    });

    test("a job's name, before anything of the batch runs", async () => {
      const result = await refused(
        ["@create", "G", "@job", "../prepare", "@run"],
        64,
        /cannot be a job's name/,
      );
      expect(result.stderr).not.toContain("Executing");
    });

    test("UEFI firmware for that architecture, or as named by the user", async () => {
      await refused(["-u", "create", "G"], 66, /no such firmware file: \/nowhere/, {}, (box) =>
        configure(box, "PORT=\nOVMF_CODE=/nowhere\nOVMF_VARS=/nowhere\n"),
      );
    });

    test("KVM, if requested and unusable", async () => {
      if (/\b(vmx|svm)\b/.test(await Bun.file("/proc/cpuinfo").text())) return;
      await refused(["run"], 69, /cannot use ACCEL=kvm/, {}, async (box) => {
        await make(box);
        configure(box, "PORT=\nACCEL=kvm\n");
      });
    });
  });

  describe("the environment", () => {
    test.each([["PROFILES"], ["LIBEXEC"]])("refuses %s as a HOSTDIR", async (name) => {
      using box = smallSandbox();
      configure(box, `${name}=${box.host}\n`);
      for (const args of [["create", "G"], ["backup"], ["-d", box.host, "run"]])
        expectError(await box.vm(args), 64, new RegExp(`is ${name}`));
      expect(names(box.host)).toEqual([]);
    });

    test("~/vm is PROFILES by default", async () => {
      using box = smallSandbox();
      mkdirSync(join(box.home, "vm"));
      expectError(await box.vm(["create", "G"], { cwd: join(box.home, "vm") }), 64, /PROFILES/);
    });

    test.each(["/sys", "/nonexistent/tmp", "/dev/null"])(
      "TMPDIR=%s cannot hold working files",
      async (TMPDIR) => {
        await refused(["create", "G"], 73, new RegExp(`cannot create working files in ${TMPDIR}`), {
          env: { TMPDIR },
        });
      },
    );

    test("an unwritable HOSTDIR", async () => {
      await refused(["-d", "/sys/kernel", "create", "G"], 73, /cannot .*\/sys\/kernel/);
    });

    test("a missing current directory", async () => {
      using box = smallSandbox();
      const gone = join(box.top, "gone");
      mkdirSync(gone);
      const program = ["sh", "-c", `cd "${gone}" && rmdir "${gone}" && exec "$0" "$@"`, binary];
      // Bun's runtime itself reports it, before the program starts.
      const result = await box.vm(["run"], { program });
      expect(result.status).toBeGreaterThan(0);
      expect(result.stderr).toMatch(/director/);
    });
  });

  test("a snapshot's name, a description and a guest name cannot reach a shell", async () => {
    using box = smallSandbox();
    const evil = '$(touch pwned)`touch pwned`"; touch pwned; "';
    await box.ok([
      "@create",
      evil,
      iso.installerIso,
      "@run",
      "@backup",
      evil,
      evil,
      "@restore",
      evil,
      "@run",
    ]);
    expect(box.read("backups", evil, "DESCRIPTION")).toBe(`${evil}\n`);
    expect(await Bun.$`find ${box.top} -name pwned`.text()).toBe("");
  });
});
