import { afterEach, beforeEach, expect, test } from "bun:test";
import { readdirSync, renameSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatDeviceNumber } from "../../src/qemu/block-device.ts";
import { resolveBackingFile, recordBackingFile, requireOwnDisk } from "../../src/vm/backing-file.ts";
import type { Workdir } from "../../src/store/workdir.ts";
import type { BaseRecord } from "../../src/store/mark-types.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
let base: string;
let disk: string;
beforeEach(() => {
  temp = new Temp();
  base = temp.write("base.img", Buffer.alloc(1 << 20));
  disk = temp.path("disk-0.img");
  overlay(base);
});
afterEach(() => temp[Symbol.dispose]());

function overlay(over: string, format = "raw"): void {
  const argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", over, "-F", format, disk, "1M"];
  const { exitCode, stderr } = Bun.spawnSync(argv);
  if (exitCode !== 0) throw new Error(stderr.toString());
}

const image = () => ({ format: "raw", path: base }) as const;

function work(record: BaseRecord | undefined = recordBackingFile(image())): Workdir {
  return { state: "present", dir: temp.top, inplace: false, mark: { vm: 1, created: "", base: record } };
}

test("accepts an unchanged image", () => {
  expect(resolveBackingFile(work(), disk)).toEqual({ ...image(), blockDevice: false });
  expect(requireOwnDisk(work(), disk)).toEqual({ ...image(), blockDevice: false });
});

test("accepts a moved one with a symlink in its place", () => {
  const remembered = work();
  renameSync(base, temp.path("elsewhere"));
  symlinkSync("elsewhere", base);
  expect(resolveBackingFile(remembered, disk)?.path).toBe(base);
});

test.each<[string, () => void, number]>([
  ["is gone", () => renameSync(base, temp.path("elsewhere")), 66],
  ["has grown", () => writeFileSync(base, Buffer.alloc(2 << 20)), 74],
  ["was touched", () => utimesSync(base, 1e9, 1e9), 74],
])("one that %s: refused, with a hint", async (_title, change, status) => {
  const remembered = work();
  change();
  const error = await failureOf(() => resolveBackingFile(remembered, disk));
  expect(error.exitCode).toBe(status);
  expect(error.message).toContain(base);
  expect(error.hint).toContain("restore a snapshot");
});

test("the hint for one that was only touched works", async () => {
  const remembered = work();
  utimesSync(base, 1e9, 1e9);
  const { hint } = await failureOf(() => resolveBackingFile(remembered, disk));
  const command = /touch -d \S+ \S+/.exec(hint ?? "")?.[0];
  expect(Bun.spawnSync(["sh", "-c", command!]).exitCode).toBe(0);
  expect(resolveBackingFile(remembered, disk)?.path).toBe(base);
});

test.each<[string, () => Workdir]>([
  ["names another path", () => work({ ...recordBackingFile(image()), path: "/etc/shadow" })],
  ["is not recorded", () => ({ ...work(), mark: { vm: 1, created: "" } })],
])("refuses a backing file that %s", async (_title, remembered) => {
  expect(resolveBackingFile(remembered(), disk)).toBeUndefined();
  const error = await failureOf(() => requireOwnDisk(remembered(), disk));
  expect(error.exitCode).toBe(74);
  expect(error.message).toContain("refers to an external backing file");
});

test("refuses a disk that was rebased to another image", async () => {
  const remembered = work();
  overlay(temp.write("other.img", Buffer.alloc(1 << 20)));
  expect((await failureOf(() => requireOwnDisk(remembered, disk))).exitCode).toBe(74);
});

test("refuses a replaced image that refers to a file itself", async () => {
  Bun.spawnSync(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", base, "1M"]);
  const remembered = work({ ...recordBackingFile(image()), format: "qcow2" });
  expect((await failureOf(() => resolveBackingFile(remembered, disk))).exitCode).toBe(74);
});

const DEVICE = readdirSync("/dev")
  .map((name) => join("/dev", name))
  .find((path) => statSync(path, { throwIfNoEntry: false })?.isBlockDevice());

test.skipIf(DEVICE === undefined)("of a block device its number and its size are recorded", () => {
  const { rdev } = statSync(DEVICE!);
  const record = recordBackingFile({ format: "raw", path: DEVICE!, blockDevice: true });
  expect(record).toMatchObject({ path: DEVICE!, format: "raw", device: rdev });
  expect(record.modified).toBeUndefined();
});

test.skipIf(DEVICE === undefined || process.getuid!() !== 0)(
  "refuses a block device that an earlier version did not record (needs root)",
  async () => {
    symlinkSync(DEVICE!, temp.path("device"));
    overlay(temp.path("device"));
    const path = temp.path("device");
    const error = await failureOf(() => resolveBackingFile(work({ path, format: "raw" }), disk));
    expect(error.exitCode).toBe(74);
  },
);

test.each([
  [0x0801, "8:1"],
  [0xfe00, "254:0"],
  [0x700, "7:0"],
  [0x10_0305, "3:261"],
])("the device number %d is %s", (device, text) => {
  expect(formatDeviceNumber(device)).toBe(text);
});
