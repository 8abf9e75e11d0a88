import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { writeSums } from "../../src/snapshot/make/describe.ts";
import { findDamage, findSnapshotDiskDamage } from "../../src/store/snapshot-damage.ts";
import { contentSum, parentKeys } from "../../src/store/snapshot-parent.ts";
import { findSnapshot, listSnapshots, type Snapshot } from "../../src/store/snapshots.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
});
afterEach(() => temp[Symbol.dispose]());

const GUEST_ENV = 'GUESTNAME="g"\nMEMORY="128M"\nIMAGES=(\n    "VIRT=disk-0.img"\n)\n';
const DISK = "the content of a disk\n".repeat(100);

/** A qcow2 header with its tables within 256 KiB (docs/interop/qcow2.txt), as far as it is checked. */
function qcow2(backing = ""): Buffer {
  const bytes = Buffer.alloc(1 << 18);
  bytes.write("QFI\xfb", 0, "latin1");
  bytes.writeUInt32BE(3, 4);
  if (backing !== "") {
    bytes.writeBigUInt64BE(512n, 8);
    bytes.writeUInt32BE(Buffer.byteLength(backing), 16);
    bytes.write(backing, 512);
  }
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(1n << 24n, 24);
  bytes.writeUInt32BE(1, 36);
  bytes.writeBigUInt64BE(3n << 16n, 40);
  bytes.writeBigUInt64BE(1n << 16n, 48);
  bytes.writeUInt32BE(1, 56);
  return bytes;
}

async function resum(name: string): Promise<void> {
  rmSync(temp.path("backups", name, "SHA256SUMS"), { force: true });
  await writeSums(temp.path("backups", name));
}

async function make(
  name: string,
  format: "gz" | "qcow2",
  more: object = {},
  id = "0".repeat(15) + name.at(-1)!,
): Promise<Snapshot> {
  const file = format === "gz" ? "disk-0.img.gz" : "disk-0.qcow2";
  const parent = (more as { parent?: string }).parent;
  const content = format === "gz" ? gzipSync(DISK) : qcow2(parent ? `../${parent}/disk-0.qcow2` : "");
  temp.write(`backups/${name}/${file}`, content);
  temp.write(`backups/${name}/guest.env`, GUEST_ENV);
  temp.write(`backups/${name}/vm.defaults`, "-foo\n");
  temp.write(`backups/${name}/TS`, "2024-01-02 03:04:05\n");
  temp.write(`backups/${name}/DESCRIPTION`, "");
  const manifest = {
    version: 1,
    format,
    id,
    ...more,
    tool: "vm 1",
    guest: "g",
    made: `2024-01-02T03:04:0${name.at(-1)}Z`,
    consistency: "offline",
    firstTime: false,
    files: [
      {
        name: "disk-0.img",
        file,
        bytes: format === "gz" ? DISK.length : 1 << 18,
        allocatedBytes: 4096,
        storedBytes: content.length,
        ...(format === "qcow2" ? { virtualBytes: 1 << 24 } : {}),
      },
    ],
  };
  temp.write(`backups/${name}/manifest.json`, JSON.stringify(manifest));
  await resum(name);
  return findSnapshot(temp.top, name);
}

function damageOf(name: string): string | undefined {
  const all = new Map(listSnapshots(temp.top).map((item) => [item.name, item]));
  return findDamage(findSnapshot(temp.top, name), (wanted) => all.get(wanted));
}

const flip = (path: string, at: number): void => {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
};

test.each(["TS", "DESCRIPTION"])("a missing %s is damage", async (name) => {
  await make("S0", "gz");
  rmSync(temp.path("backups/S0", name));
  expect(damageOf("S0")).toBe(`${name} is missing`);
});

test("of a working disk's parents only disks count, down to the last", async () => {
  const parent = await make("S1", "qcow2");
  const child = await make("S2", "qcow2", parentKeys(parent));
  const find = (name: string): Snapshot => findSnapshot(temp.top, name);
  rmSync(temp.path("backups/S1/guest.env"));
  flip(temp.path("backups/S2/TS"), 3);
  expect(findSnapshotDiskDamage(child, find)).toBeUndefined();
  truncateSync(temp.path("backups/S1/disk-0.qcow2"), 1 << 17);
  expect(findSnapshotDiskDamage(child, find)).toMatch(
    /^its parent S1 is damaged: disk-0\.qcow2 has 131072 bytes/,
  );
  rmSync(temp.path("backups/S2/SHA256SUMS"));
  expect(findSnapshotDiskDamage(child, find)).toBe("SHA256SUMS is missing");
});

test("intact ones have none", async () => {
  await make("S0", "gz");
  const parent = await make("S1", "qcow2");
  await make("S2", "qcow2", parentKeys(parent));
  for (const name of ["S0", "S1", "S2"]) expect(damageOf(name)).toBeUndefined();
});

describe("found without reading disk contents:", () => {
  const cases: [what: string, damage: (dir: string) => void | Promise<void>, expected: RegExp][] = [
    ["a flip in guest.env", (dir) => flip(join(dir, "guest.env"), 30), /guest\.env: its checksum is wrong/],
    ["a flip in TS", (dir) => flip(join(dir, "TS"), 3), /TS: its checksum is wrong/],
    ["a flip in vm.defaults", (dir) => flip(join(dir, "vm.defaults"), 1), /vm\.defaults: its checksum/],
    [
      "a changed manifest",
      (dir) =>
        writeFileSync(
          join(dir, "manifest.json"),
          readFileSync(join(dir, "manifest.json"), "utf8").replace('"guest":"g"', '"guest":"h"'),
        ),
      /manifest\.json: its checksum is wrong/,
    ],
    ["an empty manifest", (dir) => writeFileSync(join(dir, "manifest.json"), ""), /manifest is incomplete/],
    ["no SHA256SUMS", (dir) => rmSync(join(dir, "SHA256SUMS")), /SHA256SUMS is missing/],
    [
      "SHA256SUMS cut off",
      (dir) => truncateSync(join(dir, "SHA256SUMS"), 100),
      /SHA256SUMS is truncated|does not name/,
    ],
    ["guest.env gone", (dir) => rmSync(join(dir, "guest.env")), /guest\.env is missing/],
    [
      "an empty guest.env with a checksum",
      async (dir) => {
        writeFileSync(join(dir, "guest.env"), "\0\0");
        await resum("S0");
      },
      /guest\.env:1: it is empty/,
    ],
    [
      "a missing file that only SHA256SUMS names",
      (dir) => rmSync(join(dir, "vm.defaults")),
      /vm\.defaults is missing/,
    ],
    ["a missing disk", (dir) => rmSync(join(dir, "disk-0.img.gz")), /disk-0\.img\.gz is missing/],
    [
      "a disk of another length",
      (dir) => truncateSync(join(dir, "disk-0.img.gz"), 20),
      /has 20 bytes instead of/,
    ],
    [
      "a named pipe instead",
      (dir) => {
        rmSync(join(dir, "disk-0.img.gz"));
        Bun.spawnSync(["mkfifo", join(dir, "disk-0.img.gz")]);
      },
      /is no regular file/,
    ],
    [
      "a symlink instead",
      (dir) => {
        rmSync(join(dir, "disk-0.img.gz"));
        symlinkSync("/etc/hostname", join(dir, "disk-0.img.gz"));
      },
      /is no regular file/,
    ],
    ["another magic", (dir) => flip(join(dir, "disk-0.img.gz"), 0), /is no gzip file/],
    [
      "another length in gzip's trailer",
      (dir) => flip(join(dir, "disk-0.img.gz"), readFileSync(join(dir, "disk-0.img.gz")).length - 4),
      /does not decompress to/,
    ],
    [
      "a named pipe as guest.env",
      (dir) => {
        rmSync(join(dir, "guest.env"));
        Bun.spawnSync(["mkfifo", join(dir, "guest.env")]);
      },
      /named pipe/,
    ],
  ];
  test.each(cases)("%s", async (_what, damage, expected) => {
    await make("S0", "gz");
    await damage(temp.path("backups/S0"));
    expect(damageOf("S0")).toMatch(expected);
  });

  test.each<[what: string, at: number, expected: RegExp]>([
    ["qcow2's magic", 0, /no qcow2 header/],
    ["the corrupt bit", 79, /holds|corrupt|refers/],
    ["the virtual size", 28, /holds a disk of/],
    ["the L1 table's offset", 43, /L1 table is beyond the end of the file/],
    ["the refcount table's offset", 51, /refcount table is beyond the end of the file/],
  ])("a change of %s", async (_what, at, expected) => {
    await make("S0", "qcow2");
    const path = temp.path("backups/S0/disk-0.qcow2");
    const bytes = readFileSync(path);
    bytes[at]! ^= at === 79 ? 2 : 1;
    writeFileSync(path, bytes);
    expect(damageOf("S0")).toMatch(expected);
  });
});

const odd = async (text: string): Promise<void> => {
  await make("S0", "gz");
  temp.write("backups/S0/guest.env", text);
};

test.each(["gz", "qcow2"] as const)(
  "finds each flip and each truncation of a small file: %s",
  async (format) => {
    await make("S0", format);
    for (const file of ["guest.env", "manifest.json", "TS", "vm.defaults"]) {
      const path = temp.path("backups/S0", file);
      const whole = readFileSync(path);
      for (let at = 0; at < whole.length; at++) {
        flip(path, at);
        expect({ file, at, damage: damageOf("S0") ?? "none" }).not.toMatchObject({ damage: "none" });
        writeFileSync(path, whole.subarray(0, at));
        expect({ file, at, damage: damageOf("S0") ?? "none" }).not.toMatchObject({ damage: "none" });
        writeFileSync(path, whole);
      }
    }
    expect(damageOf("S0")).toBeUndefined();
  },
);

describe("settings that this version rejects", () => {
  test("are intact if they match their checksum", async () => {
    await odd(`${GUEST_ENV}[ -e x ] && MEMORY=1G\n`);
    await resum("S0");
    expect(damageOf("S0")).toBeUndefined();
  });

  test("are damage without one", async () => {
    await odd(`${GUEST_ENV}[ -e x ] && MEMORY=1G\n`);
    for (const name of ["SHA256SUMS", "manifest.json"]) rmSync(temp.path("backups/S0", name));
    expect(damageOf("S0")).toMatch(/guest\.env:6: /);
  });
});

describe("a parent is identified by id and checksum:", () => {
  test("finds another snapshot under its name", async () => {
    await make("S1", "qcow2", parentKeys(await make("S0", "qcow2")));
    expect(damageOf("S1")).toBeUndefined();
    await make("S0", "qcow2", {}, "f".repeat(16));
    expect(damageOf("S0")).toBeUndefined();
    expect(damageOf("S1")).toMatch(/^its parent "S0" is another snapshot than the one it was made on/);
  });

  test("finds other content under its id", async () => {
    await make("S1", "qcow2", parentKeys(await make("S0", "qcow2")));
    flip(temp.path("backups/S0/disk-0.qcow2"), 1 << 17);
    await resum("S0");
    expect(damageOf("S1")).toMatch(/^its parent "S0" has changed since/);
  });

  test("accepts a checksum from before a merge", async () => {
    const before = await make("S0", "qcow2");
    await make("S1", "qcow2", parentKeys(before));
    const sum = contentSum(before)!;
    await make("S0", "qcow2", { formerSums: [sum], more: "merged" });
    expect(contentSum(findSnapshot(temp.top, "S0"))).not.toBe(sum);
    expect(damageOf("S1")).toBeUndefined();
  });

  test("ignores another description", async () => {
    await make("S1", "qcow2", parentKeys(await make("S0", "qcow2")));
    temp.write("backups/S0/DESCRIPTION", "another\n");
    await resum("S0");
    expect(damageOf("S1")).toBeUndefined();
  });

  test("a damaged or missing parent damages its children", async () => {
    await make("S1", "qcow2", parentKeys(await make("S0", "qcow2")));
    mkdirSync(temp.path("aside"));
    flip(temp.path("backups/S0/guest.env"), 12);
    expect(damageOf("S1")).toMatch(/^its parent S0 is damaged: guest\.env: its checksum is wrong/);
    rmSync(temp.path("backups/S0"), { recursive: true });
    expect(damageOf("S1")).toBe('its parent "S0" is missing');
  });

  test("parents of earlier versions are identified by name only", async () => {
    await make("S0", "qcow2");
    await make("S1", "qcow2", { parent: "S0" });
    expect(damageOf("S1")).toBeUndefined();
  });
});
