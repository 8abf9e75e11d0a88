import { expect, test } from "bun:test";
import {
  missingModules,
  moduleName,
  parseModuleGraph,
  resolveModules,
} from "../../src/rescue/build/module-graph.ts";
import { WARM_MODULES, ESSENTIAL_MODULES, MODULES } from "../../src/rescue/build/module-list.ts";
import { parseSignatureBytes } from "../../src/rescue/build/signature.ts";

const DEP = `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/fs/netfs/netfs.ko.xz:
updates/dkms/dm-mod.ko:
# Aliases extracted from modules themselves.
alias fs-9p 9p
alias char-major-10-237 loop
softdep ext4 pre: crypto-crc32c
`;
const BUILTIN = "kernel/drivers/virtio/virtio_pci.ko\nkernel/crypto/sha256_generic.ko\n";
const GRAPH = parseModuleGraph(DEP, BUILTIN);

test.each([
  ["kernel/fs/nls/nls_iso8859-1.ko.xz", "nls_iso8859_1"],
  ["kernel/fs/9p/9p.ko", "9p"],
  ["dm-mod.ko.zst", "dm_mod"],
  ["dm-mod", "dm_mod"],
])("%s is the module %s", (path, name) => {
  expect(moduleName(path)).toBe(name);
});

test("lines of depmod's other lists are not modules", () => {
  expect([...GRAPH.paths.keys()]).toEqual([
    "9p",
    "9pnet",
    "9pnet_virtio",
    "virtio",
    "virtio_ring",
    "netfs",
    "dm_mod",
  ]);
});

test("includes dependencies of modules, also indirect ones, but no built-in modules", () => {
  expect(resolveModules(GRAPH, ["9pnet_virtio", "virtio_pci", "dm_mod", "nowhere"])).toEqual([
    "kernel/drivers/virtio/virtio.ko.xz",
    "kernel/drivers/virtio/virtio_ring.ko.xz",
    "kernel/net/9p/9pnet.ko.xz",
    "kernel/net/9p/9pnet_virtio.ko.xz",
    "updates/dkms/dm-mod.ko",
  ]);
});

test("accepts modules that depend on each other", () => {
  const graph = parseModuleGraph("a.ko: b.ko\nb.ko: a.ko\n", "");
  expect(resolveModules(graph, ["a"])).toEqual(["a.ko", "b.ko"]);
});

test("a module is missing if it is not built in either", () => {
  expect(missingModules(GRAPH, ["9p", "virtio-pci", "nvme"])).toEqual(["nvme"]);
  expect(missingModules(parseModuleGraph("", ""), ESSENTIAL_MODULES)).toEqual([...ESSENTIAL_MODULES]);
});

test("packs each driver of a saved state, by names of one word", () => {
  expect(MODULES).toEqual(expect.arrayContaining([...WARM_MODULES, ...ESSENTIAL_MODULES]));
  expect(MODULES.filter((name) => !/^[\w-]+$/.test(name))).toEqual([]);
});

test("finds a module's signature and its length", () => {
  const info = Buffer.from([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xa9]);
  const magic = Buffer.from("~Module signature appended~\n");
  expect(parseSignatureBytes(Buffer.concat([info, magic]))).toBe(40 + 0x2a9);
  expect(parseSignatureBytes(Buffer.concat([Buffer.alloc(100), info, magic]))).toBe(40 + 0x2a9);
  expect(parseSignatureBytes(Buffer.alloc(40))).toBe(0);
  expect(parseSignatureBytes(magic)).toBe(0);
});
