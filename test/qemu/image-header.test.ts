import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import {
  findHeaderDamage,
  parseImageHeader,
  readImageHeader,
  readOwnHeader,
  refuseExternalReference,
} from "../../src/qemu/image-header.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

/** A sparse VMDK, little-endian: capacity at 12, the descriptor's sector at 28. */
const kdmv = (capacity: bigint, descriptor: bigint): Buffer => {
  const bytes = Buffer.from(header([0, "KDMV"]));
  bytes.writeBigUInt64LE(capacity, 12);
  bytes.writeBigUInt64LE(descriptor, 28);
  return bytes;
};

/** The first 512 bytes of a header, with data at an offset. */
function header(...parts: [at: number, bytes: string | Buffer][]): Buffer {
  const bytes = Buffer.alloc(512);
  for (const [at, part] of parts)
    (typeof part === "string" ? Buffer.from(part, "latin1") : part).copy(bytes, at);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

const QCOW2 = "QFI\xfb";
const DATA_FILE = 4n;

describe("a qcow2 header", () => {
  /** An image of 16 MiB in clusters of 64 KiB: a refcount table at 64 KiB, an L1 table of one entry at 192 KiB. */
  const good: [number, Buffer][] = [
    [4, u32(3)],
    [20, u32(16)],
    [24, u64(1n << 24n)],
    [36, u32(1)],
    [40, u64(3n << 16n)],
    [48, u64(1n << 16n)],
    [56, u32(1)],
  ];
  const END = (3 << 16) + 8;
  /** A directory of 32 bytes, in an extension after another one. */
  const bitmaps = (at: number): [number, Buffer][] => [
    [88, u64(1n)],
    [100, u32(104)],
    [104, u32(0x6803f857)],
    [108, u32(5)],
    [120, u32(0x23852875)],
    [124, u32(24)],
    [136, u64(32n)],
    [144, u64(BigInt(at))],
  ];
  const parse = (...more: [number, Buffer][]) => parseImageHeader(header([0, QCOW2], ...good, ...more)).qcow2;

  test("yields size, internal snapshots and tables", () => {
    expect(parse([60, u32(2)])).toEqual({
      known: true,
      clusterBytes: 65536,
      virtualBytes: 1 << 24,
      corrupt: false,
      dataFile: false,
      newer: false,
      internalSnapshots: 2,
      tables: [
        { name: "L1 table", start: 3 << 16, end: END },
        { name: "refcount table", start: 1 << 16, end: 2 << 16 },
      ],
    });
  });

  test.each<[what: string, more: [number, Buffer][], fileBytes: number, expected: string | undefined]>([
    ["valid", [], END, undefined],
    ["with lazy refcounts not written (dirty bit)", [[72, u64(1n)]], END, undefined],
    ["with a bitmap directory in it", bitmaps(100), END, undefined],
    [
      "with a bitmap directory beyond its end",
      bitmaps(END - 8),
      END,
      "its bitmap directory is beyond the end of the file: it is truncated",
    ],
    [
      "with an invalid bitmap directory that qemu ignores (autoclear bit unset)",
      bitmaps(END).filter(([at]) => at !== 88),
      END,
      undefined,
    ],
    ["with the corrupt bit", [[72, u64(2n)]], END, "qemu has marked it corrupt"],
    ["with an external data file", [[72, u64(4n)]], END, "it refers to an external data file"],
    [
      "of version 2, which has no feature bits",
      [
        [4, u32(2)],
        [72, u64(2n)],
      ],
      END,
      undefined,
    ],
    ["one byte short", [], END - 1, "its L1 table is beyond the end of the file: it is truncated"],
    [
      "with an L1 table beyond its end",
      [[40, u64(1n << 40n)]],
      END,
      "its L1 table is beyond the end of the file: it is truncated",
    ],
    [
      "without a refcount table",
      [[48, u64(0n)]],
      END,
      "its refcount table is beyond the end of the file: it is truncated",
    ],
    [
      "with a huge refcount table",
      [[56, u32(9)]],
      END,
      "its refcount table is beyond the end of the file: it is truncated",
    ],
    ["of an unknown version", [[4, u32(4)]], END, "it has no qcow2 header"],
    ["with impossible clusters", [[20, u32(60)]], END, "it has no qcow2 header"],
  ])("%s", (_what, more, fileBytes, expected) => {
    expect(findHeaderDamage({ qcow2: parse(...more), fileBytes })).toBe(expected);
  });

  test("is absent in an empty file and in another format", () => {
    for (const bytes of [Buffer.alloc(0), header([0, "KDMV"])]) {
      const { qcow2 } = parseImageHeader(bytes);
      expect(qcow2).toBeUndefined();
      expect(findHeaderDamage({ qcow2, fileBytes: 1 << 20 })).toBe("it has no qcow2 header");
    }
  });
});

describe("parseImageHeader", () => {
  test.each<[string, Buffer, string, string | undefined]>([
    ["nothing", Buffer.alloc(0), "raw", undefined],
    ["zeroes", header(), "raw", undefined],
    ["a boot sector", header([510, "\x55\xaa"]), "raw", undefined],
    ["half a magic number", header([0, "QFI"]), "raw", undefined],
    ["a magic number at another offset", header([1, QCOW2]), "raw", undefined],
    ["qcow2 v3", header([0, QCOW2], [4, u32(3)]), "qcow2", undefined],
    ["qcow2 v2", header([0, QCOW2], [4, u32(2)]), "qcow2", undefined],
    [
      "qcow2 v2 with a backing file",
      header([0, QCOW2], [4, u32(2)], [8, u64(512n)]),
      "qcow2",
      "backing file",
    ],
    ["qcow2 v3 with a backing file", header([0, QCOW2], [4, u32(3)], [8, u64(1n)]), "qcow2", "backing file"],
    [
      "qcow2 v3 with a huge backing offset",
      header([0, QCOW2], [4, u32(3)], [8, u64(2n ** 63n)]),
      "qcow2",
      "backing file",
    ],
    [
      "qcow2 v3 with a data file",
      header([0, QCOW2], [4, u32(3)], [72, u64(DATA_FILE)]),
      "qcow2",
      "data file",
    ],
    [
      "qcow2 v3 with other features",
      header([0, QCOW2], [4, u32(3)], [72, u64(0b11011n)]),
      "qcow2",
      undefined,
    ],
    // In version 2 the header ends at byte 72.
    [
      "qcow2 v2 with those bytes set",
      header([0, QCOW2], [4, u32(2)], [72, u64(DATA_FILE)]),
      "qcow2",
      undefined,
    ],
    ["vmdk, sparse", header([0, "KDMV"]), "vmdk", undefined],
    ["vmdk, sparse, with a descriptor", kdmv(2048n, 1n), "vmdk", undefined],
    ["vmdk, only a descriptor", kdmv(0n, 1n), "vmdk", "data file"],
    [
      "vmdk with a parent",
      Buffer.concat([
        kdmv(2048n, 1n),
        Buffer.from('# Disk DescriptorFile\nparentFileNameHint="/etc/shadow"\n'),
      ]),
      "vmdk",
      "backing file",
    ],
    ["vmdk, a text descriptor", header([0, "# Disk DescriptorFile\n"]), "vmdk", "data file"],
    ["vdi", header([64, "\x7f\x10\xda\xbe"]), "vdi", undefined],
    ["vhdx", header([0, "vhdxfile"]), "vhdx", undefined],
    ["vpc", header([0, "conectix"]), "vpc", undefined],
    ["qed", header([0, "QED\0"]), "qed", undefined],
    // docs/interop/qed_spec: feature bit 0 at byte 16, little-endian.
    ["qed with a backing file", header([0, "QED\0"], [16, Buffer.from([1])]), "qed", "backing file"],
  ])("%s", (_title, bytes, format, refersTo) => {
    expect(parseImageHeader(bytes)).toMatchObject({ format, refersTo } as object);
  });
});

const fileOf = (title: string): string => `${title.replaceAll(/\W+/g, "-")}.img`;

describe("images of qemu-img", () => {
  let temp: Temp;
  const images: Record<string, { args: string[]; format: string; refersTo?: string }> = {
    qcow2: { args: ["-f", "qcow2"], format: "qcow2" },
    "qcow2, compat 0.10": { args: ["-f", "qcow2", "-o", "compat=0.10"], format: "qcow2" },
    "qcow2 on a raw file": {
      args: ["-f", "qcow2", "-b", "base.raw", "-F", "raw"],
      format: "qcow2",
      refersTo: "backing file",
    },
    "qcow2 0.10 on a raw file": {
      args: ["-f", "qcow2", "-o", "compat=0.10", "-b", "base.raw", "-F", "raw"],
      format: "qcow2",
      refersTo: "backing file",
    },
    "qcow2 with a data file": {
      args: ["-f", "qcow2", "-o", "data_file=data.raw"],
      format: "qcow2",
      refersTo: "data file",
    },
    "qcow2 with a raw data file": {
      args: ["-f", "qcow2", "-o", "data_file=data2.raw,data_file_raw=on"],
      format: "qcow2",
      refersTo: "data file",
    },
    raw: { args: ["-f", "raw"], format: "raw" },
    vdi: { args: ["-f", "vdi"], format: "vdi" },
    vhdx: { args: ["-f", "vhdx"], format: "vhdx" },
    vpc: { args: ["-f", "vpc"], format: "vpc" },
    qed: { args: ["-f", "qed"], format: "qed" },
    "qed on a raw file": {
      args: ["-f", "qed", "-b", "base.raw", "-F", "raw"],
      format: "qed",
      refersTo: "backing file",
    },
    vmdk: { args: ["-f", "vmdk"], format: "vmdk" },
    "vmdk, for streams": { args: ["-f", "vmdk", "-o", "subformat=streamOptimized"], format: "vmdk" },
    "vmdk on another": {
      args: ["-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk"],
      format: "vmdk",
      refersTo: "backing file",
    },
    "vmdk, flat": {
      args: ["-f", "vmdk", "-o", "subformat=monolithicFlat"],
      format: "vmdk",
      refersTo: "data file",
    },
  };
  beforeAll(() => {
    temp = new Temp();
    const create = (...args: string[]): void => {
      const { exitCode, stderr } = Bun.spawnSync(["qemu-img", "create", "-q", ...args, "1M"], {
        cwd: temp.top,
      });
      if (exitCode !== 0) throw new Error(stderr.toString());
    };
    create("-f", "raw", "base.raw");
    create("-f", "vmdk", "base.vmdk");
    for (const [title, { args }] of Object.entries(images)) create(...args, fileOf(title));
  });
  afterAll(() => temp[Symbol.dispose]());

  test.each(Object.keys(images))("%s", (title) => {
    const { format, refersTo } = images[title]!;
    const read = readImageHeader(temp.path(fileOf(title)));
    expect(read).toMatchObject({ format, refersTo } as object);
  });

  test.each([
    ["qcow2", undefined],
    ["qcow2, compat 0.10", undefined],
    ["qcow2 on a raw file", "it refers to an external backing file"],
    ["qcow2 with a data file", "it refers to an external data file"],
    ["raw", "it is raw, not qcow2"],
    ["qed", "it is qed, not qcow2"],
  ])("as a working disk, %s: %p", async (title, reason) => {
    const path = temp.path(fileOf(title));
    if (reason === undefined) return expect(() => refuseExternalReference(path)).not.toThrow();
    const error = await failureOf(() => refuseExternalReference(path));
    expect(error.exitCode).toBe(74);
    expect(error.message).toBe(`refusing ${path}: ${reason}`);
  });

  test("reads the name of a backing file", () => {
    expect(readOwnHeader(temp.path(fileOf("qcow2 on a raw file"))).backingName).toBe("base.raw");
    expect(readOwnHeader(temp.path(fileOf("qcow2"))).backingName).toBeUndefined();
  });

  test("an empty file and a short one are raw", () => {
    const path = temp.write("short", "QFI\xfb");
    expect(readImageHeader(path).format).toBe("raw");
    truncateSync(path);
    expect(readImageHeader(path)).toMatchObject({ format: "raw", refersTo: undefined, fileBytes: 0 });
  });

  test("does not read a backing file's name from beyond its limit", () => {
    const path = temp.write("far", header([0, QCOW2], [4, u32(3)], [8, u64(2n ** 63n)], [16, u32(9)]));
    expect(readOwnHeader(path)).toMatchObject({ refersTo: "backing file", backingName: undefined });
  });

  test("a missing file is a system error", () => {
    expect(() => readImageHeader(temp.path("none"))).toThrow("ENOENT");
  });
});
