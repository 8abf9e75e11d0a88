/** Export and import with real programs: pipes, kills, full disks, and guests that boot from what arrived. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { ovf1, ovf2, tarOf, vmdkOf } from "../fixtures/ova.ts";
import { binary, type Sandbox } from "./harness.ts";
import { expectError, installed, names, shell, suite } from "./tools.ts";

let box: Sandbox;
const vm = resolve(binary);
const place = (name: string): string => join(box.top, name);

/** Runs a shell line with `vm` in HOSTDIR; fails if any part of a pipe does. */
async function line(text: string): Promise<void> {
  const child = Bun.spawn(["bash", "-o", "pipefail", "-c", text.replaceAll(/\bvm\b/g, vm)], {
    cwd: box.host,
    env: box.env(),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [status, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  if (status !== 0) throw new Error(`${text}: ${status}\n${stderr}`);
}

/** Its guest boots from the disk, where it has counted one boot. */
async function expectBoots(name: string): Promise<void> {
  await box.ok(["run"], { cwd: place(name) });
  const console = readFileSync(join(place(name), ".work/console.log"), "utf8").replaceAll("\r", "");
  expect(console).toContain("RUN 2\n");
}

suite("export and import", () => {
  beforeAll(async () => {
    box = await installed();
    await box.ok(["backup", "--format=qcow2"]);
  });
  afterAll(() => box?.[Symbol.dispose]());

  test("a snapshot and a VM go through a pipe, and boot", async () => {
    await line("vm export S0 | vm import - ../snapshot");
    await line("vm export | vm import - ../working");
    for (const name of ["snapshot", "working"]) {
      await expectBoots(name);
      await box.ok(["verify", "--all"], { cwd: place(name) });
    }
    expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
  });

  test("a reader that ends makes the export fail, and a stream that is cut off is refused", async () => {
    await expect(line("vm export S0 | head -c 70000 >/dev/null")).rejects.toThrow(
      /: 74\n[^]*closed the pipe/,
    );
    await expect(line("vm export S0 | head -c 70000 | vm import - ../cut")).rejects.toThrow("truncated");
    expect(existsSync(place("cut"))).toBe(false);
    expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
  });

  test("after a kill at any time, the same command completes", async () => {
    const file = place("killed.vm");
    await box.ok(["export", "S0", "-o", place("good.vm")]);
    const good = readFileSync(place("good.vm"));
    for (const ms of [40, 120, 200, 300]) {
      const running = box.start(["export", "S0", "-o", file]);
      await Bun.sleep(ms);
      running.kill("SIGKILL");
      await running.done;
      if (!existsSync(file)) await box.ok(["export", "S0", "-o", file]);
      expect(readFileSync(file).equals(good)).toBe(true);
      rmSync(file);
    }
    for (const ms of [60, 150, 250, 400, 600]) {
      const running = box.start(["import", place("good.vm"), place("killed")]);
      await Bun.sleep(ms);
      running.kill("SIGKILL");
      await running.done;
      if (!existsSync(join(place("killed"), ".work")))
        await box.ok(["import", place("good.vm"), place("killed")]);
      await box.ok(["verify", "--all"], { cwd: place("killed") });
      await box.ok(["destroy"], { cwd: place("killed") });
      rmSync(place("killed"), { recursive: true });
    }
  });

  test("OVAs made by hand import and boot", async () => {
    const raw = place("raw");
    await shell(`qemu-img convert -O raw '${join(box.work, "disk-0.img")}' '${raw}'`, dirname(raw));
    const vmdk = vmdkOf(raw, place("disk.vmdk"));
    const bytes = 16 << 20;
    writeFileSync(
      place("one.ova"),
      tarOf([
        ["m.ovf", Buffer.from(ovf1("disk.vmdk", bytes))],
        ["disk.vmdk", vmdk],
      ]),
    );
    copyFileSync(place("disk.vmdk"), place("two"));
    await shell("gzip -c two > two.gz && rm two", box.top);
    const ovf = ovf2("d.gz", bytes, 'ovf:compression="gzip"').replace("vmware.nvme.controller", "AHCI");
    writeFileSync(
      place("two.ova"),
      tarOf([
        ["m.ovf", Buffer.from(ovf)],
        ["d.gz", readFileSync(place("two.gz"))],
      ]),
    );
    await box.ok(["import", place("one.ova"), place("one")]);
    await box.ok(["--no-uefi", "import", place("two.ova"), place("two")]);
    for (const name of ["one", "two"]) await expectBoots(name);
  });

  test("an export to a directory that does not exist fails", async () => {
    expectError(await box.vm(["export", "S0", "-o", place("none/x")]), 66, /no such directory/);
  });
});
