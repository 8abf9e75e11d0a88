import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { processesIn } from "../e2e/harness.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

/** Debian's variables with enrolled keys. */
const ENROLLED = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

const CONF = "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n";

/** Writes its arguments and a state, and serves its connection until qemu closes it. */
const SWTPM = `echo "$@" >swtpm.args
[ -e tpm2-00.permall ] || (umask 077; echo new >tpm2-00.permall)
exec cat <&3`;

async function withTpm(conf = CONF, ...words: string[]): Promise<Sandbox> {
  const box = new Sandbox(conf);
  box.program("swtpm", SWTPM);
  await box.ok(...words, "--tpm", "create", "G");
  return box;
}

const directory = (box: Sandbox): string => join(box.work, ".vm-tpm");
const state = (box: Sandbox): string => join(directory(box), "tpm2-00.permall");
const readState = (box: Sandbox): string => readFileSync(state(box), "utf8").trim();
const manifest = (box: Sandbox, name: string): any => JSON.parse(box.read("backups", name, "manifest.json"));

/** Has the state of the TPM exist, and change like that of a guest. */
async function boot(box: Sandbox, text: string): Promise<void> {
  await box.running();
  await until("swtpm has started", () => existsSync(state(box)));
  writeFileSync(state(box), `${text}\n`);
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
    const left = Bun.spawn([script], { cwd: directory(box), stdio: ["ignore", "ignore", "ignore"] });
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
      writeFileSync(state(box), "b\n");
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

  test.skipIf(!existsSync(ENROLLED))("with enrolled keys, set --no-secure-boot and run warn", async () => {
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
  });
});
