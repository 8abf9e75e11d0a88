/** The reported state of a VM after failures, and errors before any change. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { Sandbox } from "./harness.ts";
import { expectError, sha256, smallSandbox, suite } from "./tools.ts";

const stateOf = async (box: Sandbox): Promise<string> =>
  JSON.parse((await box.ok(["status", "--json"])).stdout).state;

suite("the reported state of a VM", () => {
  test("a qemu that refuses its arguments has run no guest", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    box.write("vm.defaults", "-device nonsense\n");
    expectError(await box.vm(["run"]), 74, /qemu did not start/);
    expect(await stateOf(box)).toBe("created");
    expect((await box.ok(["backup"])).stderr).not.toContain("power cut");
  });

  test("a snapshot with settings of a newer version is refused before any change", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    const env = box.path("backups/S0/guest.env");
    writeFileSync(`${env}.new`, readFileSync(env, "utf8").replace('VM_FORMAT="1"', 'VM_FORMAT="9"'));
    renameSync(`${env}.new`, env);
    const before = sha256(join(box.work, "disk-0.img"));
    expectError(await box.vm(["restore", "S0"]), 78, /newer version/);
    expect(sha256(join(box.work, "disk-0.img"))).toBe(before);
    expect((await box.ok(["snapshots"])).stdout).toMatch(/^S0 .* newer /m);
    expect((await box.vm(["verify", "S0"])).stdout).toContain("S0: NOT READABLE HERE");
    await box.ok(["backup"]);
  });

  test("refuses another machine family, or a rescue for one, at once", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    expectError(await box.vm(["--arch=ppc64le", "run"]), 64, /this VM was created for x86_64/);
    // i386 and x86_64 are one family.
    const argv = ["--arch=i386", "--image=VIRT=/nowhere", "run"];
    expectError(await box.vm(argv), 66, /nowhere/);
    const profile = join(box.home, "vm/other");
    mkdirSync(profile, { recursive: true });
    writeFileSync(join(profile, "guest.env"), 'RESCUE_KERNEL="vmlinuz"\nRESCUE_INITRD="initrd.img"\n');
    const head = Buffer.alloc(4096);
    head.write("ARM\x64", 56, "latin1");
    writeFileSync(join(profile, "vmlinuz"), head);
    writeFileSync(join(profile, "initrd.img"), "");
    box.write("nothing.job", "true\n");
    expectError(await box.vm(["--rescue=other", "job", "nothing"]), 78, /for aarch64/);
    expect((await box.ok(["rescue", "list"])).stdout).toMatch(/^other +own +aarch64 /m);
  });

  test("distinguishes machines of one name in qemu, too", async () => {
    using box = smallSandbox();
    await box.ok(["--arch=aarch64", "create", "G"]);
    for (const arch of ["riscv64", "armhf", "x86_64"])
      expectError(await box.vm([`--arch=${arch}`, "run"]), 64, /this VM was created for aarch64/);
  });

  test("without a VM there is no status", async () => {
    using box = new Sandbox();
    expectError(await box.vm(["status"]), 66, /there is no VM in/);
    expect(existsSync(box.path("guest.env"))).toBe(false);
  });
});
