import { describe, expect, test } from "bun:test";
import type { DiskRequest } from "../../src/machine/types.ts";
import type { CreateOptions } from "../../src/lifecycle/create-options.ts";
import { planDisks, type ImageSource } from "../../src/lifecycle/from-image.ts";
import type { Vm } from "../../src/vm/find.ts";
import { failureOf } from "../fixtures/failure.ts";

const GIB = 2 ** 30;

const vmWith = (disks: DiskRequest[], origin: "default" | "option" | "file"): Vm =>
  ({ settings: { DISKS: disks }, origins: { DISKS: { kind: origin } } }) as unknown as Vm;

/** An image of 2 GiB. */
const SOURCE = { virtualBytes: 2 * GIB } as ImageSource;

const options = (sizeBytes?: number, cloudInit = false): CreateOptions => ({
  from: { image: "a", linked: false, sizeBytes },
  cloudInit: cloudInit ? { user: undefined, userData: undefined } : undefined,
  images: [],
});

const ahci = (gib: number): DiskRequest => ({ bus: "AHCI", sizeBytes: gib * GIB });
const virt = (gib: number): DiskRequest => ({ bus: "VIRT", sizeBytes: gib * GIB });

describe("the disks of a VM from an image of 2 GiB:", () => {
  test.each<[string, DiskRequest[], "default" | "option" | "file", CreateOptions, DiskRequest[]]>([
    ["a larger entry is its size", [ahci(30)], "default", options(), [ahci(30)]],
    ["a smaller one is not", [ahci(1)], "option", options(), [ahci(2)]],
    ["the requested size", [ahci(30)], "default", options(3 * GIB), [ahci(3)]],
    ["the image's size", [ahci(30)], "default", options(2 * GIB), [ahci(2)]],
    ["others are unchanged", [virt(1), ahci(1)], "option", options(), [virt(2), ahci(1)]],
    ["no entry", [], "option", options(), [ahci(2)]],
    ["cloud-init, without a choice of disks", [ahci(30)], "default", options(undefined, true), [virt(30)]],
    [
      "cloud-init, and a disk on the command line",
      [ahci(30)],
      "option",
      options(undefined, true),
      [ahci(30)],
    ],
    ["cloud-init, and a disk in a file", [ahci(30)], "file", options(undefined, true), [ahci(30)]],
  ])("%s", (_title, disks, origin, asked, expected) => {
    expect(planDisks(vmWith(disks, origin), asked, SOURCE)).toEqual(expected);
  });

  test("without an image, those of DISKS", () => {
    const disks = [ahci(1), virt(3)];
    expect(planDisks(vmWith(disks, "default"), options(undefined, true), undefined)).toBe(disks);
  });

  test("refuses to shrink", async () => {
    const error = await failureOf(() => planDisks(vmWith([ahci(30)], "default"), options(GIB), SOURCE));
    expect(error.exitCode).toBe(64);
  });
});
