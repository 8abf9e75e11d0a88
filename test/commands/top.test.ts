import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatUsages, measureUsage } from "../../src/host/top/usage.ts";
import { testWith } from "../fixtures/needs.ts";
import { Refusal } from "../fixtures/qemu/block-layer.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

testWith("qemu-img")("shows running VMs; one whose monitor does not answer has no disk rates", async () => {
  using box = new Sandbox();
  expect(await box.ok("top", "--once")).toMatchObject({ stdout: "", stderr: "no VM is running\n" });
  for (const name of ["a", "b", "off"]) {
    const directory = join(box.home, "vm", name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    await box.ok("-d", directory, "create", name);
    if (name !== "off") await box.ok("-d", directory, "run", "--detach");
  }
  await box.ok("-d", join(box.home, "vm/b"), "set", "LABELS=lab");
  box.qemus[1]!.blocks.answers["query-blockstats"] = () => {
    throw new Refusal("in use");
  };
  const all = await box.json("top");
  expect(all).toMatchObject([
    { name: "a", memoryBytes: 64 << 20, disk: { readBytesPerSecond: 0 }, network: null },
    { name: "b", disk: null },
  ]);
  expect(all[0].pid).toBe((await box.json("-d", join(box.home, "vm/a"), "status")).pid);
  const table = (await box.ok("top")).stdout;
  expect(table).toMatch(/^NAME +PID +CPU %[\s\S]*^a .*\n?[\s\S]*^b .* - +- +- +-/m);
  expect(table).not.toContain("off");
  expect((await box.json("top", "@lab")).map(({ name }: { name: string }) => name)).toEqual(["b"]);
  expect((await box.ok("top", "--once", "nomatch")).stderr).toBe("no running VM matches nomatch\n");
  const settings = join(box.home, "vm/a/.work/guest.env");
  writeFileSync(settings, readFileSync(settings, "utf8").replace(/^MEMORY=.*$/m, "") + "MEMORY=oops\n");
  expect((await box.json("top", "a*")).map(({ name }: { name: string }) => name)).toEqual(["a"]);
  expect(await box.ends(64, ["top", "--delay=0"])).toMatchObject({
    stderr: expect.stringContaining("--delay"),
  });
});

test("ends with its terminal", async () => {
  using box = new Sandbox();
  box.terminal = true;
  const { done, stdout } = box.start("top");
  await until("a table is shown", () => stdout().includes("q: quit"));
  process.stdin.emit("error", new Error(""));
  expect(await done).toMatchObject({ status: 0, stderr: "" });
});

test("rates are those between two samples; names are made fit for a terminal", () => {
  const vm = { name: "e\u001b[2Jvil", directory: "/x", pid: 7, memoryBytes: 1 << 30 };
  const sample = {
    atMs: 1000,
    cpuSeconds: 5,
    rssBytes: 1 << 20,
    pssBytes: null,
    disk: { readBytes: 0, writtenBytes: 100, reads: 0, writes: 5 },
    network: null,
  };
  const now = {
    ...sample,
    atMs: 3000,
    cpuSeconds: 8,
    disk: { readBytes: 4096, writtenBytes: 50, reads: 2, writes: 5 },
  };
  expect(measureUsage(vm, undefined, now)).toMatchObject({ cpuPercent: null, disk: null });
  const usage = measureUsage(vm, sample, now);
  expect(usage).toMatchObject({
    cpuPercent: 150,
    disk: { readBytesPerSecond: 2048, writtenBytesPerSecond: 0, readsPerSecond: 1, writesPerSecond: 0 },
    network: null,
  });
  expect(formatUsages([usage])).not.toContain("\u001b");
});
