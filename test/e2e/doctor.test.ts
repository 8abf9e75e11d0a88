/** `doctor`: checks of the host. */
import { expect, test } from "bun:test";
import { chmodSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { FAMILIES } from "../../src/lib/packages.ts";
import type { Diagnosis } from "../../src/host/doctor/doctor.ts";
import { binary, Sandbox, until, type Result, type RunOptions } from "./harness.ts";
import { configure, expectError, listing, names, rootTest, smallSandbox, suite } from "./tools.ts";

/** The environment of cron. */
const CRON = { HOME: undefined, TMPDIR: undefined, LANG: undefined, PATH: "/usr/bin:/bin" };

async function jsonOf(box: Sandbox, options?: RunOptions): Promise<Diagnosis & { status: number | null }> {
  const { stdout, status } = await box.vm(["doctor", "--json"], options);
  return { ...(JSON.parse(stdout) as Diagnosis), status };
}

const stateOf = ({ checks }: Diagnosis, name: string): string =>
  checks.find((check) => check.name === name)?.state ?? "not there";

/** A directory of symlinks to programs of this host, the only one on PATH. */
function directoryOf(box: Sandbox, ...programs: string[]): string {
  const directory = join(box.top, "bin");
  mkdirSync(directory, { recursive: true });
  for (const name of programs) symlinkSync(Bun.which(name)!, join(directory, name));
  return directory;
}

const NEEDED = ["qemu-system-x86_64", "qemu-img", "pigz", "cat", "cp", "dd", "sha256sum"];

/** A qemu that answers like this one. */
function fakeQemu(directory: string, major: number, devices: string[]): void {
  const lines = [
    { QMP: { version: { qemu: { major, minor: 2, micro: 0 } }, capabilities: [] } },
    { return: devices.map((name) => ({ name })), id: 1 },
    { return: [{ option: "sandbox", parameters: [{ name: "elevateprivileges" }] }], id: 3 },
  ].map((line) => JSON.stringify(line));
  const path = join(directory, "qemu-system-x86_64");
  writeFileSync(path, `#!/bin/sh\ncat >/dev/null\ncat <<'E'\n${lines.join("\n")}\nE\n`);
  chmodSync(path, 0o755);
}

/** The rows of the table, split at the columns of its head. */
function rowsOf({ stdout }: Result): string[][] {
  const [head = "", ...lines] = stdout.trimEnd().split("\n");
  const columns = ["WHAT", "STATE", "NEED", "FOR", "DETAIL"].map((word) => head.indexOf(word));
  for (const column of columns.slice(1))
    for (const line of lines) expect(line.padEnd(column).slice(column - 2, column)).toBe("  ");
  return lines.map((line) => columns.map((column, index) => line.slice(column, columns[index + 1]).trim()));
}

suite(
  "doctor",
  () => {
    test("interrupted, it reports the signal, and no missing programs", async () => {
      using box = new Sandbox();
      const bin = join(box.top, "hanging");
      mkdirSync(bin);
      const begun = join(box.top, "begun");
      writeFileSync(join(bin, "qemu-system-x86_64"), `#!/bin/sh\n: >'${begun}'\nexec sleep 60\n`, {
        mode: 0o755,
      });
      const doctor = box.start(["doctor"], { env: { PATH: `${bin}:${process.env.PATH}` } });
      await until("qemu is asked", () => existsSync(begun));
      doctor.kill("SIGINT");
      const { status, stdout, stderr } = await doctor.done;
      expect(status).toBe(130);
      expect(stdout).toBe("");
      expect(stderr).not.toContain("missing");
    });

    test("prints a line for each item, from cron too, and creates no file", async () => {
      using box = new Sandbox();
      const result = await box.ok(["doctor"]);
      const rows = rowsOf(result);
      for (const [, state, need] of rows) {
        expect(["ok", "missing", "limited"]).toContain(state!);
        expect(["needed", "optional"]).toContain(need!);
      }
      for (const name of ["qemu-system-x86_64", "kvm", "uefi-x86_64", "pigz", "setpriv", "kernel", "tmpdir"])
        expect(rows.filter(([what]) => what === name)).toHaveLength(1);
      expect(result.stdout).not.toContain("\u001B");
      for (const directory of [box.host, box.home, box.tmp]) expect(names(directory)).toEqual([]);
      expect(rowsOf(await box.ok(["doctor"], { env: CRON })).map(([what]) => what)).toEqual(
        rows.map(([what]) => what),
      );
    });

    test("as JSON, with the packages of all distributions for missing items", async () => {
      using box = new Sandbox();
      const found = await jsonOf(box, { env: { PATH: "/nonexistent" } });
      expect(found).toMatchObject({ ok: false, status: 69 });
      expect(found.host.name).not.toBe("");
      const { packages } = found.checks.find(({ name }) => name === "qemu-img")!;
      expect(Object.keys(packages!).toSorted()).toEqual([...FAMILIES].toSorted());
      expect(packages).toMatchObject({ debian: "qemu-utils", alt: "qemu-img" });
      for (const check of found.checks) if (check.state === "ok") expect(check.packages).toBeUndefined();
    });

    rootTest("in a directory with only the program and the C library", async () => {
      using box = new Sandbox();
      const root = join(box.top, "root");
      const libraries = [...(await Bun.$`ldd ${binary}`.quiet().text()).matchAll(/(?:=> |^\s+)(\/\S+)/gm)];
      for (const [from, to] of [...libraries.map(([, path]) => [path!, path!]), [binary, "/vm"]]) {
        mkdirSync(dirname(join(root, to!)), { recursive: true });
        cpSync(from!, join(root, to!), { dereference: true });
      }
      mkdirSync(join(root, "proc"));
      const before = listing(root);
      // Bun itself does not start without /proc. The mount disappears with its namespace.
      const script = 'mount -t proc proc "$0/proc"; exec env -i "$@"';
      const chroot = Bun.which("chroot", { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" })!;
      const inside = (env: string[], ...args: string[]): Promise<Result> =>
        box.vm(args, { program: ["unshare", "-m", "sh", "-ec", script, root, ...env, chroot, root, "/vm"] });
      for (const env of [[], ["PATH=/usr/bin:/bin"]]) {
        const result = await inside(env, "doctor");
        expect(result.stderr).toMatch(
          /cannot run VMs: missing qemu-system-x86_64, qemu-img, pigz, coreutils/,
        );
        expect(result.stderr).toContain("qemu-utils (Debian, Ubuntu)");
        expect(result.status).toBe(69);
        const states = new Map(rowsOf(result).map(([what, state]) => [what, state]));
        for (const name of ["bash", "setpriv", "kernel", "qemu-system-i386", "rescue"])
          expect([name, states.get(name)]).toEqual([name, "missing"]);
        expect(states.get("kvm")).toBe("limited");
      }
      expect(await inside([], "config", "CORES")).toMatchObject({
        status: 0,
        stdout: "CORES=2  # built-in default\n",
      });
      expect(listing(root)).toEqual(before);
    });

    test("exits with 69 for missing required items, not for optional ones", async () => {
      using box = new Sandbox();
      const PATH = directoryOf(box, ...NEEDED);
      const found = await jsonOf(box, { env: { PATH } });
      expect([found.ok, found.status, stateOf(found, "ssh"), stateOf(found, "bash")]).toEqual([
        true,
        0,
        "missing",
        "missing",
      ]);
      using other = new Sandbox();
      const lacking = directoryOf(other, ...NEEDED.filter((name) => name !== "pigz" && name !== "dd"));
      const result = await other.vm(["doctor"], { env: { PATH: lacking } });
      expectError({ ...result, stdout: "" }, 69, /cannot run VMs: missing pigz, coreutils\n/);
      expect(
        rowsOf(result).filter(([, state, need]) => state === "missing" && need === "needed"),
      ).toHaveLength(2);
    });

    test("rejects setpriv and dd of busybox", async () => {
      using box = new Sandbox();
      const PATH = directoryOf(box, ...NEEDED.filter((name) => name !== "dd"));
      for (const name of ["setpriv", "dd"]) symlinkSync(Bun.which("busybox")!, join(PATH, name));
      const found = await jsonOf(box, { env: { PATH } });
      for (const name of ["setpriv", "coreutils"])
        expect([name, stateOf(found, name)]).toEqual([name, "limited"]);
    });

    test("checks qemu: one too old, one without features", async () => {
      using box = new Sandbox();
      const PATH = directoryOf(box, "sh", ...NEEDED.slice(1));
      fakeQemu(PATH, 6, []);
      const old = await jsonOf(box, { env: { PATH } });
      expect([stateOf(old, "qemu-system-x86_64"), old.status]).toEqual(["missing", 69]);
      fakeQemu(PATH, 9, ["VGA", "vmgenid"]);
      const bare = await jsonOf(box, { env: { PATH } });
      const features = [
        "qemu-system-x86_64",
        "virtio",
        "devices",
        "sandbox",
        "spice",
        "live snapshots",
        "9p",
        "vmgenid",
      ];
      expect(features.map((name) => stateOf(bare, name))).toEqual([
        "ok",
        "missing",
        "missing",
        "ok",
        "missing",
        "ok",
        "missing",
        "ok",
      ]);
      writeFileSync(join(PATH, "qemu-system-x86_64"), "#!/bin/sh\necho 'cannot load' >&2; exit 1\n");
      const broken = await box.vm(["doctor"], { env: { PATH } });
      expect(broken.stdout).toContain("cannot load");
      expect(broken.status).toBe(69);
      // It is installed.
      expect(broken.stderr).toMatch(/\n {2}qemu-system-x86_64: cannot query .*cannot load/);
      expect(broken.stderr).not.toContain("install");
    });

    test("requires what the settings need", async () => {
      using box = new Sandbox();
      configure(box, "UEFI=1\nQEMUARCH=i386\nOVMF_CODE=/nowhere/code\nOVMF_VARS=/nowhere/vars\n");
      const found = await jsonOf(box);
      const needed = found.checks.filter((check) => check.needed).map(({ name }) => name);
      expect(needed).toContain("qemu-system-i386");
      expect(needed).not.toContain("qemu-system-x86_64");
      expect([stateOf(found, "uefi-i386"), found.status]).toEqual(["missing", 69]);
    });

    test("--report has the VM's settings and logs, without secrets and names", async () => {
      using box = smallSandbox();
      await box.ok(["create", "G"]);
      writeFileSync(join(box.work, "qemu.log"), `ann reads ${box.home}/x\n`);
      writeFileSync(join(box.work, "console.log"), "\u001B[1mlogin:\u001B[0m hunter2 hunter3\r\n```\n");
      writeFileSync(join(box.work, "spice.password"), "hunter3");
      const env = { USER: "ann", SPICE_PASSWORD: "hunter2" };
      const { stdout } = await box.ok(["doctor", "--report"], { env });
      for (const title of ["vm ", "doctor", "settings", "end of qemu.log", "end of console.log"])
        expect(stdout).toContain(`### ${title}`);
      expect(stdout).toContain("USER reads ~/x\n");
      expect(stdout).toContain("````text\nlogin: *** ***\n```\n````\n");
      expect(stdout).toMatch(/^MEMORY=64M +# .*guest\.env:\d+$/m);
      for (const word of [box.home, "hunter", "\u001B"]) expect(stdout).not.toContain(word);
      expectError(await box.vm(["doctor", "--report", "--json"]), 64, /cannot be combined/);
    });

    test("unusable directories, rescues and settings", async () => {
      using box = new Sandbox();
      configure(box, `PROFILES=${box.home}/vms\nCORES=many\n`);
      mkdirSync(join(box.home, "vms/mine"), { recursive: true });
      writeFileSync(join(box.home, "vms/mine/guest.env"), "RESCUE_KERNEL=gone\nRESCUE_INITRD=gone\n");
      const found = await jsonOf(box, { env: { TMPDIR: join(box.tmp, "gone") } });
      const states = ["tmpdir", "profiles", "rescue:mine", "settings"].map((name) => stateOf(found, name));
      expect(states).toEqual(["missing", "ok", "limited", "limited"]);
      expect(found.status).toBe(69);
    });
  },
  ["ldd", "busybox", "unshare"],
);
