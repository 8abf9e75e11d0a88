import { expect, test } from "bun:test";
import { mergeSettings } from "../../src/config/merge.ts";
import type { RawSettings } from "../../src/config/schema.ts";

test.each<[string, RawSettings, RawSettings, RawSettings]>([
  ["a stronger text", { CORES: "4" }, { CORES: "2", PORT: "1" }, { CORES: "4", PORT: "1" }],
  ["an empty text", { PORT: "" }, { PORT: "5900" }, { PORT: "" }],
  ["a list, whole", { DISKS: ["NVME=5G"] }, { DISKS: ["AHCI=30G", "AHCI=1G"] }, { DISKS: ["NVME=5G"] }],
  ["an empty list", { SSHKEYS: [] }, { SSHKEYS: ["/a"] }, { SSHKEYS: [] }],
  ["a text instead of a list", { DISKS: "NVME=5G" }, { DISKS: ["AHCI=30G"] }, { DISKS: "NVME=5G" }],
  ["nothing", {}, { CORES: "2" }, { CORES: "2" }],
])("%s replaces", (_title, stronger, weaker, merged) => {
  const before = structuredClone({ stronger, weaker });
  expect(mergeSettings(stronger, weaker)).toEqual(merged);
  expect({ stronger, weaker }).toEqual(before);
});
