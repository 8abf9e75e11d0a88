import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { findSwtpm } from "../../src/vm/tpm.ts";
import { processesIn } from "../e2e/harness.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";
import { testIf } from "../fixtures/needs.ts";
import { startNamed } from "../fixtures/processes.ts";

/** Debian's variables with enrolled keys. */
const ENROLLED = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

const CONF = "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n";

/** Writes its arguments and a state, and serves its connection until qemu closes it. */
const SWTPM = `echo "$@" >swtpm.args
[ -e tpm2-00.permall ] || (umask 077; printf '\\2\\1\\0\\12\\0\\0\\0\\0\\0\\16new\\n' >tpm2-00.permall)
cat <&3`;

/** A state with swtpm's header. */
function stateOf(text: string): Buffer {
  const content = Buffer.concat([Buffer.from([2, 1, 0, 10, 0, 0, 0, 0, 0, 0]), Buffer.from(text)]);
  content.writeUInt32BE(content.length, 6);
  return content;
}

async function withTpm(conf = CONF, ...words: string[]): Promise<Sandbox> {
  const box = new Sandbox(conf);
  box.program("swtpm", SWTPM);
  await box.ok(...words, "--tpm", "create", "G");
  return box;
}

const directory = (box: Sandbox): string => join(box.work, ".vm-tpm");
const state = (box: Sandbox): string => join(directory(box), "tpm2-00.permall");
const readState = (box: Sandbox): string => readFileSync(state(box), "utf8").slice(10);
const manifest = (box: Sandbox, name: string): any => JSON.parse(box.read("backups", name, "manifest.json"));

/** Has the state of the TPM exist, and change like that of a guest. */
async function boot(box: Sandbox, text: string): Promise<void> {
  await box.running();
  await until("swtpm has started", () => existsSync(state(box)));
  writeFileSync(state(box), stateOf(text));
}

describe("a TPM", () => {
  test("is stored by create, emulated by swtpm in a private directory, and shown by status", async () => {
    using box = await withTpm();
    expect(box.read(".work/guest.env")).toContain('TPM="2.0"');
    await boot(box, "a");
    const { argv } = box.qemus.at(-1)!;
    expect(argv.join(" ")).toContain(
      "-chardev socket,id=tpm0-control,fd=3 -tpmdev emulator,id=tpm0,chardev=tpm0-control -device tpm-crb,tpmdev=tpm0",
    );
    expect(statSync(directory(box)).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(directory(box), "swtpm.args"), "utf8").trim()).toBe(
      "socket --tpm2 --tpmstate dir=.,mode=0600 --ctrl type=unixio,clientfd=3 --terminate",
    );
    expect(await box.json("status")).toMatchObject({ tpm: "2.0", secureBoot: false });
    await box.ends(0, "status", "TPM:           2.0");
    await box.ok("stop");
    await box.ok("destroy");
  });

  test("ends with qemu: no process is left", async () => {
    using box = await withTpm();
    await boot(box, "a");
    expect(processesIn(box.top).some((line) => line.includes("cat"))).toBe(true);
    await box.ok("stop");
    await until("swtpm has exited", () => processesIn(box.top).length === 0);
  });

  test("ends with a qemu that does not start (74)", async () => {
    using box = await withTpm();
    box.qemu = { refuse: { status: 1, words: "bad" } };
    await box.ends(74, "run", "bad");
    await until("swtpm has exited", () => processesIn(box.top).length === 0);
  });

  test("the messages of an swtpm that fails are those of qemu's log", async () => {
    using box = await withTpm();
    box.program("swtpm", "echo the state is damaged >&2; exit 1");
    box.qemu = { refuse: { status: 1, words: "tpm-emulator: no" } };
    await box.ends(74, "run", "the state is damaged");
  });

  test("left by a killed command is ended by the next one", async () => {
    using box = await withTpm();
    mkdirSync(directory(box), { mode: 0o700 });
    const script = box.program("swtpm", "sleep 1000");
    const left = await startNamed(script, [], { cwd: directory(box) });
    using _clock = fastClock();
    await box.ends(0, "destroy");
    expect(await left.exited).not.toBe(0);
  });

  test("run-vm.sh starts swtpm itself, on a socket in its directory", async () => {
    using box = await withTpm();
    await boot(box, "a");
    const script = box.read(".work/run-vm.sh");
    expect(script).toContain(
      "(cd .vm-tpm && exec swtpm socket --tpm2 --tpmstate dir=.,mode=0600 --ctrl type=unixio,path=swtpm.sock,mode=0600 --terminate) &",
    );
    expect(script).toContain("socket,id=tpm0-control,path=.vm-tpm/swtpm.sock");
    expect(script).not.toContain("fd=3");
    await box.ok("stop");
  });

  test("needs swtpm: 69 with its package, and nothing is started", async () => {
    using box = await withTpm();
    rmSync(join(box.bin, "swtpm"));
    box.without("swtpm");
    await box.ends(69, "run", "install swtpm");
    expect(box.qemus).toEqual([]);
  });

  test.each([
    [69, "--arch=riscv64 --tpm create G", "riscv64 guests have no TPM"],
    [69, "--arch=ppc64le --secure-boot create G", "ppc64le guests have no Secure Boot"],
    [69, "--arch=armhf --secure-boot create G", "armhf guests have no Secure Boot"],
    [64, "--secure-boot create G", "Secure Boot needs UEFI, and this VM boots by BIOS"],
  ] as const)("%i: %s", async (status, line, printed) => {
    using box = new Sandbox(CONF);
    await box.ends(status, line, printed);
    expect(readdirSync(box.host)).toEqual([]);
  });

  test("set adds it from the next run on; refused where the architecture has none (69)", async () => {
    using box = new Sandbox(CONF);
    box.program("swtpm", SWTPM);
    await box.ok("create", "G");
    await box.running();
    await box.ends(0, "set --tpm", "TPM: empty -> 2.0", "from the next run on");
    expect((await box.json("status")).nextRun).toEqual({ TPM: "2.0" });
    await box.ok("stop");
    await boot(box, "a");
    await box.ok("stop");
    await box.ends(0, "set TPM=", "TPM: 2.0 -> empty");
    expect((await box.running()).argv.join(" ")).not.toContain("tpm");
    expect(readState(box)).toBe("a");
    await box.ok("stop");
    await box.ends(64, "set --secure-boot", "needs UEFI");
    await box.ends(64, "set TPM=1.2", "2.0");
  });

  test("a copy with a new UUID keeps it, and says so", async () => {
    using box = await withTpm();
    await boot(box, "a");
    await box.ok("stop");
    await box.ends(0, "identity --new", "the TPM is kept", "rm -r ");
  });
});

describe("the state of a TPM", () => {
  describe.each(["gz", "qcow2"])("of format %s", (format) => {
    test.each([
      ["off", false],
      ["running", true],
    ])("is in a snapshot of a VM that is %s, and restored with mode 0600", async (_title, live) => {
      using box = await withTpm(`${CONF}SNAPSHOT_FORMAT=${format}\n`);
      await boot(box, "a");
      if (!live) await box.ok("stop");
      await box.ok("backup");
      if (live) await box.ok("stop");
      expect(manifest(box, "S0").version).toBe(2);
      expect(box.read("backups/S0/SHA256SUMS")).toContain("  tpm2-00.permall.gz");
      writeFileSync(state(box), stateOf("b"));
      await box.ok("backup");
      await box.ok("@verify", "--all", "@restore", "S0");
      expect(readState(box)).toBe("a");
      expect(statSync(state(box)).mode & 0o777).toBe(0o600);
      expect(statSync(directory(box)).mode & 0o777).toBe(0o700);
      await box.ok("restore");
      expect(readState(box)).toBe("b");
      if (format === "gz") return;
      await box.ok("@destroy", "@snapshots", "rm", "--merge", "S0", "@restore", "S1");
      expect(readState(box)).toBe("b");
      expect(manifest(box, "S1").version).toBe(2);
    });
  });

  test.each([false, true])("is removed by restoring a snapshot without it; in place: %p", async (inplace) => {
    using box = new Sandbox(`${CONF}${inplace ? "INPLACE=1\n" : ""}`);
    box.program("swtpm", SWTPM);
    await box.ok("@create", "G", "@backup");
    expect(manifest(box, "S0").version).toBe(1);
    await box.ok("set", "--tpm");
    await boot(box, "a");
    await box.ok("stop");
    await box.ok("backup");
    await box.ok("restore", "S0");
    expect(existsSync(directory(box))).toBe(false);
    await box.ok("restore", "S1");
    expect(readState(box)).toBe("a");
    await box.ok("destroy");
    expect(existsSync(join(box.host, ".vm-tpm"))).toBe(false);
  });

  test("in HOSTDIR, a directory of this name that the program did not make is refused (73)", async () => {
    using box = await withTpm(`${CONF}INPLACE=1\n`);
    box.write(".vm-tpm/mine", "x");
    await box.ends(73, "run", ".vm-tpm");
    expect(box.read(".vm-tpm/mine")).toBe("x");
  });

  test("damaged in a snapshot: verify and restore find it (74)", async () => {
    using box = await withTpm();
    await boot(box, "a");
    await box.ok("stop");
    await box.ok("backup");
    const stored = box.path("backups/S0/tpm2-00.permall.gz");
    const bytes = readFileSync(stored);
    bytes[bytes.length - 6]! ^= 1;
    writeFileSync(stored, bytes);
    await box.ends(74, "verify", "tpm2-00.permall.gz");
    await box.ends(74, "restore", "tpm2-00.permall.gz");
    expect(readState(box)).toBe("a");
  });

  test.each([
    ["garbage", Buffer.from("x".repeat(100)), "it is damaged: it has 100 bytes, and "],
    ["empty", Buffer.alloc(0), "it is empty"],
    ["huge", Buffer.alloc(2 << 20), "it is larger than 1.0 MiB"],
  ])("that is %s in a snapshot of intact files: verify finds it (74)", async (_title, content, said) => {
    using box = await withTpm();
    await boot(box, "a");
    await box.ok("stop");
    await box.ok("backup");
    // As of the earlier program: without sums.
    for (const name of ["SHA256SUMS", "manifest.json"]) rmSync(box.path("backups/S0", name));
    await box.ok("verify");
    writeFileSync(box.path("backups/S0/tpm2-00.permall.gz"), Bun.gzipSync(content));
    await box.ends(74, "verify", `tpm2-00.permall.gz: ${said}`);
    await box.ends(74, "verify --deep", `tpm2-00.permall.gz: ${said}`);
  });
});

/** Replaces the directory or the state by what is not one; each is refused with a word. */
const UNUSABLE: readonly [string, (box: Sandbox) => void, string][] = [
  [
    "a symlink in the directory's place",
    (box) => {
      renameSync(directory(box), join(box.top, "elsewhere"));
      symlinkSync(join(box.top, "elsewhere"), directory(box));
    },
    "directory",
  ],
  [
    "a symlink to nothing in the directory's place",
    (box) => {
      rmSync(directory(box), { recursive: true });
      symlinkSync("/nonexistent/x", directory(box));
    },
    "directory",
  ],
  [
    "a file in the directory's place",
    (box) => {
      rmSync(directory(box), { recursive: true });
      writeFileSync(directory(box), "x");
    },
    "directory",
  ],
  ["a named pipe", (box) => makePipe(box, "tpm2-00.permall"), "not a regular file but a named pipe"],
  ["a named pipe that swtpm opens", (box) => makePipe(box, ".lock"), "not a regular file but a named pipe"],
  [
    "a directory",
    (box) => {
      rmSync(state(box));
      mkdirSync(state(box));
    },
    "not a regular file but a directory",
  ],
  [
    "a symlink",
    (box) => {
      renameSync(state(box), join(box.top, "state"));
      symlinkSync(join(box.top, "state"), state(box));
    },
    "not a regular file but a symbolic link",
  ],
  ["a huge file", (box) => truncateSync(state(box), 20 * 2 ** 30), "larger than 1.0 MiB"],
  ["an empty file", (box) => truncateSync(state(box)), "empty"],
  ["a truncated file", (box) => truncateSync(state(box), 9), "truncated"],
  ["garbage", (box) => writeFileSync(state(box), "x".repeat(100)), "has 100 bytes, and "],
];

function makePipe(box: Sandbox, name: string): void {
  rmSync(join(directory(box), name), { force: true });
  expect(Bun.spawnSync(["mkfifo", join(directory(box), name)]).exitCode).toBe(0);
}

describe("a state of the TPM that is not one", () => {
  test.each(UNUSABLE)(
    "%s: run and backup refuse it (74), and nothing is started",
    async (_title, spoil, printed) => {
      using box = await withTpm();
      await boot(box, "a");
      await box.ok("stop");
      const started = box.qemus.length;
      spoil(box);
      await box.ends(74, "backup", ".vm-tpm", printed);
      expect(existsSync(box.path("backups", "S0"))).toBe(false);
      await box.ends(74, "run --detach", ".vm-tpm", printed);
      expect(box.qemus.length).toBe(started);
    },
  );

  test.each(UNUSABLE)("%s: backup of a running VM refuses it (74)", async (_title, spoil, printed) => {
    using box = await withTpm();
    await boot(box, "a");
    spoil(box);
    await box.ends(74, "backup", ".vm-tpm", printed);
    expect(existsSync(box.path("backups", "S0"))).toBe(false);
  });
});

describe("a missing state of the TPM", () => {
  test("of a VM that has not run is no reason for a warning", async () => {
    using box = await withTpm();
    expect((await box.ends(0, "backup")).stderr).not.toContain("TPM");
    expect((await box.ends(0, "run --detach")).stderr).not.toContain("TPM");
  });

  test("of a VM that has run: backup and run warn of it, and name the snapshot that has it", async () => {
    using box = await withTpm();
    await boot(box, "a");
    await box.ok("stop");
    rmSync(directory(box), { recursive: true });
    await box.ends(0, "backup", "the state of the TPM is missing", "no snapshot has a copy");
    await box.ends(0, "run --detach", "this run makes a new TPM", "no snapshot has a copy");
    await until("swtpm has started", () => existsSync(state(box)));
    expect((await box.ends(0, "backup")).stderr).not.toContain("missing");
    await box.ok("stop");
    rmSync(directory(box), { recursive: true });
    await box.ends(0, "backup", "the state of the TPM is missing", "restore S1");
  });

  test("after a restore: run warns of it, and also if the last run was one without a TPM", async () => {
    using box = await withTpm();
    await boot(box, "a");
    await box.ok("stop");
    await box.ok("backup");
    await box.ok("@restore", "--copy", "@set", "TPM=", "@run", "--detach", "@stop", "@set", "TPM=2.0");
    rmSync(directory(box), { recursive: true });
    await box.ends(0, "run --detach", "this run makes a new TPM", "restore S0");
  });
});

test("an swtpm that has exited is reported by status and by a backup of the running VM", async () => {
  using box = await withTpm();
  await boot(box, "a");
  expect(await box.json("status")).not.toHaveProperty("tpmExited");
  const [swtpm] = findSwtpm(box.work);
  process.kill(swtpm!.pid, "SIGKILL");
  await until("swtpm has exited", () => findSwtpm(box.work).length === 0);
  expect(await box.json("status")).toMatchObject({ tpm: "2.0", tpmExited: true });
  await box.ends(0, "status", "TPM:           2.0; swtpm has exited", "restart");
  await box.ends(0, "backup", "swtpm has exited", "restart");
  await box.ok("stop");
  expect(await box.json("status")).not.toHaveProperty("tpmExited");
});

/** A firmware of the user's own: a volume without variables. */
async function secure(...words: string[]): Promise<Sandbox> {
  const box = new Sandbox(CONF);
  const volume = Buffer.alloc(4096);
  volume.writeBigUInt64LE(4096n, 32);
  volume.write("_FVH", 40);
  const [code, vars] = ["code", "vars"].map((name) => box.write(join(box.top, name), volume));
  box.configure(`OVMF_CODE=${code}\nOVMF_VARS=${vars}\n`);
  await box.ok(...words, "create", "G");
  return box;
}

describe("Secure Boot", () => {
  test("asks for SMM and protects the variables", async () => {
    using box = await secure("--uefi", "--secure-boot");
    const { argv } = await box.running();
    expect(argv.join(" ")).toContain("-machine q35,smm=on,pflash0=");
    expect(argv.join(" ")).toContain("-global driver=cfi.pflash01,property=secure,value=on");
    expect(await box.json("status")).toMatchObject({ uefi: true, secureBoot: true, tpm: null });
    expect(await box.json("status")).toMatchObject({ platformKey: false, secureBootEnforced: false });
    await box.ends(0, "status", /UEFI, Secure Boot \(not enforced: no keys\)$/m);
    await box.ok("stop");
  });

  test("without enrolled keys: set and run warn, and name the command that helps", async () => {
    using box = await secure("--uefi");
    const { stderr } = await box.ends(0, "set --secure-boot", "Secure Boot is not enforced");
    const paste = /mv (\S+efivars\.bin) /.exec(stderr)![1]!;
    expect(dirname(paste)).toBe(box.work);
    expect(stderr).not.toContain("vm stop");
    await box.ok("set", "--no-secure-boot");
    await box.running();
    await box.ends(0, "set --secure-boot", "without boot entries: vm stop && mv ");
    await box.ok("stop");
    using other = await secure("--uefi");
    await other.ends(0, "--secure-boot run --detach", "Secure Boot is not enforced");
    await other.ok("stop");
    await box.ends(64, "--no-uefi run", "needs UEFI");
    await box.ends(64, "set --no-uefi", "needs UEFI");
  });

  testIf(existsSync(ENROLLED), ENROLLED)(
    "with enrolled keys, set --no-secure-boot and run warn",
    async () => {
      using box = new Sandbox(CONF);
      const code = box.write(join(box.top, "code"), "");
      box.configure(`OVMF_CODE=${code}\nOVMF_VARS=${ENROLLED}\n`);
      await box.ok("--uefi", "--secure-boot", "create", "G");
      expect((await box.ends(0, "run --detach")).stderr).not.toContain("enforced");
      expect(await box.json("status")).toMatchObject({ platformKey: true, secureBootEnforced: true });
      await box.ends(0, "status", /UEFI, Secure Boot$/m);
      await box.ok("stop");
      await box.ends(0, "set --no-secure-boot", "Secure Boot may still be enforced", "mv ");
      // Another VM: a warning is printed once.
      using other = new Sandbox(CONF);
      other.configure(`OVMF_CODE=${code}\nOVMF_VARS=${ENROLLED}\n`);
      await other.ok("--uefi", "--secure-boot", "create", "G");
      await other.ends(0, "--no-secure-boot run --detach", "Secure Boot may still be enforced");
      await other.ok("stop");
      expect(await box.json("status")).toMatchObject({ platformKey: true, secureBootEnforced: null });
      await box.ends(0, "status", "UEFI (keys are enrolled: Secure Boot may be enforced)");
    },
  );
});
