import { expect, test } from "bun:test";
import { splitPlugged } from "../../src/qemu/plug.ts";

test("NVMe disks are plugged in later, everything else stays in its order", () => {
  const argv = [
    "qemu",
    "-device",
    "nvme,id=disk0-dev,drive=disk0,serial=disk-0,bootindex=1",
    "-device",
    "nvmex,a=b",
    "-S",
  ];
  expect(splitPlugged(argv)).toEqual({
    argv: ["qemu", "-device", "pcie-root-port,id=port0,chassis=1", "-device", "nvmex,a=b", "-S"],
    plugged: [{ driver: "nvme", id: "disk0-dev", drive: "disk0", serial: "disk-0", bus: "port0" }],
  });
});

test("without any nothing changes", () => {
  expect(splitPlugged(["qemu", "-S"])).toEqual({ argv: ["qemu", "-S"], plugged: [] });
});
