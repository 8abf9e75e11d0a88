import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { created as createdWith } from "../fixtures/built.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import type { FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";

/** A VM without and with CD images beside it. */
async function created(): Promise<Sandbox> {
  const box = await createdWith("MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\nSHARES=()\n");
  for (const name of ["a.iso", "b.iso"]) box.write(name, iso());
  return box;
}

/** The least that passes as a CD: a volume descriptor (ECMA-119). */
function iso(): Buffer {
  const bytes = Buffer.alloc(40 * 2048);
  bytes.write("\u0001CD001\u0001", 16 * 2048, "latin1");
  return bytes;
}

const settings = async (box: Sandbox): Promise<{ ISO: string; KEEPCD: string }> => {
  const { ISO, KEEPCD } = await box.json("config", "ISO", "KEEPCD");
  return { ISO: ISO.raw, KEEPCD: KEEPCD.raw };
};
const inside = ({ blocks }: FakeQemu): Record<string, string> =>
  Object.fromEntries(
    [...blocks.nodes].filter(([name]) => /^cd\d$/.test(name)).map(([name, { file }]) => [name, file]),
  );

test("while the VM is off: stored for the next runs, until it is taken out", async () => {
  using box = await created();
  await box.ends(0, "cd a.iso", "a.iso");
  expect(await settings(box)).toEqual({ ISO: "a.iso", KEEPCD: "1" });
  const qemu = await box.running();
  expect(inside(qemu)).toEqual({ cd0: box.path("a.iso") });
  await box.ok("stop");
  await box.ok("cd", "--eject");
  expect(await settings(box)).toEqual({ ISO: "", KEEPCD: "" });
  expect(inside(await box.running())).toEqual({});
});

test("while the guest runs: inserted, changed, taken out", async () => {
  using box = await created();
  const qemu = await box.running();
  const elsewhere = join(box.top, "c.iso");
  writeFileSync(elsewhere, iso());
  await box.ok("cd", "a.iso");
  expect(inside(qemu)).toEqual({ cd0: box.path("a.iso") });
  await box.ok("cd", elsewhere);
  expect(inside(qemu)).toEqual({ cd1: elsewhere });
  expect(qemu.blocks.drives.get("cd0-dev")).toBe("cd1");
  await box.ends(0, "cd --eject", "ejected the CD");
  expect(inside(qemu)).toEqual({});
});

test("--eject of an empty drive: says so (0)", async () => {
  using box = await created();
  await box.ends(0, "cd --eject", "the CD drive is empty already");
  const qemu = await box.running();
  await box.ends(0, "cd --eject", "the CD drive is empty already");
  expect(qemu.requests.some(({ execute }) => execute === "blockdev-open-tray")).toBe(false);
});

test("a guest that has locked the drive keeps the CD (75), unless forced", async () => {
  using box = await created();
  await box.ok("cd", "a.iso");
  const qemu = await box.running();
  qemu.blocks.stubborn = true;
  const before = readFileSync(join(box.work, "guest.env"), "utf8");
  {
    using _clock = fastClock();
    await box.ends(75, "cd b.iso", "locked", "--force");
  }
  expect(inside(qemu)).toEqual({ cd0: box.path("a.iso") });
  expect(readFileSync(join(box.work, "guest.env"), "utf8")).toBe(before);
  await box.ok("cd", "--force", "b.iso");
  expect(inside(qemu)).toEqual({ cd1: box.path("b.iso") });
});

test("a machine without a drive whose CD can be changed: from the next run", async () => {
  using box = await created();
  await box.running({ answers: { "query-block": () => [] } });
  await box.ends(0, "cd a.iso", "from the next run");
  expect((await settings(box)).ISO).toBe("a.iso");
});

test("what a killed command has left in the drive is replaced", async () => {
  using box = await created();
  const qemu = await box.running();
  await box.ok("cd", "a.iso");
  qemu.blocks.drives.delete("cd0-dev");
  await box.ok("cd", "b.iso");
  expect(inside(qemu)).toEqual({ cd0: box.path("b.iso") });
});

test.each<[words: string, status: number, printed: string]>([
  ["", 64, "IMAGE is missing"],
  ["a.iso --eject", 64, "takes no IMAGE"],
  ["nothing.iso", 66, "nothing.iso"],
  ["eject", 66, "vm cd --eject"],
  ["rm", 66, "vm cd --eject"],
  ["list", 66, "vm status"],
])("cd %s: %d", async (words, status, printed) => {
  using box = await created();
  await box.ends(status, `cd ${words}`, printed);
  expect((await settings(box)).ISO).toBe("");
});
