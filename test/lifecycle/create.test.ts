/** A VM's settings as written by `create`. Uses qemu-img; runs no guest. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readAssignments } from "../../src/config/literal.ts";
import type { KeptName } from "../../src/config/schema.ts";
import type { Context } from "../../src/vm/context.ts";
import { parseCreateOptions } from "../../src/lifecycle/create-options.ts";
import { createVm } from "../../src/lifecycle/create.ts";
import { readVmStatus } from "../../src/vm/status.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Place } from "../store/working-files.ts";

let place: Place;
beforeEach(() => {
  place = new Place();
});
afterEach(() => place[Symbol.dispose]());

const contextOf = (images: string[] = []): Context => ({
  prog: "vm-unit-test",
  version: "0",
  cwd: place.host,
  home: place.directory("home"),
  env: { PATH: process.env.PATH },
  hostArch: "x86_64",
  tmpdir: place.tmp,
  cacheDirectory: undefined,
  libexec: place.path("libexec"),
  options: {
    settings: { DISKS: ["AHCI=1M", "VIRT=1M"] },
    additions: { IMAGES: images, FORWARDS: [] },
    hostdir: undefined,
  },
  ask: undefined,
  manual: async () => "",
  checkLine: async () => {},
  meter: () => ({ update: () => {}, finish: () => {} }),
  print: () => {},
});

/** Creates a VM. @returns its settings, from its guest.env, and the context afterwards */
async function create(
  args: Record<string, unknown>,
  { iso, images = [] }: { iso?: string; images?: string[] } = {},
): Promise<{ settings: Record<string, unknown>; context: Context }> {
  const context = contextOf(images);
  await createVm(context, "G", iso, parseCreateOptions(args));
  const read = readAssignments(readFileSync(join(place.host, ".work/guest.env"), "utf8"), () => "");
  if (read.kind !== "values") throw new Error("guest.env cannot be read literally");
  return { settings: Object.fromEntries(read.assignments.map(({ name, value }) => [name, value])), context };
}

/** Values other than the default of each setting that guest.env holds only then; `create` itself finds the others. */
const CHANGED: Record<
  Exclude<
    KeptName<"if changed">,
    "UUID" | "IMAGE_FORMATS" | "IMAGE_NUMBERS" | "CONTROLLER_PLACES" | "SECURE_BOOT"
  >,
  string | string[]
> = {
  TPM: "2.0",
  ACCEL: "tcg",
  CPU: "qemu64",
  DISK_AIO: "threads",
  SHARED_RAM: "",
  SMBIOS: ["type=1,serial=7"],
  SSH_USER: "anna",
  LABELS: ["web"],
  CPU_QUOTA: "150%",
  MEMORY_MAX: "100G",
  IO_WEIGHT: "50",
  SLICE: "vms.slice",
  DISK_LIMITS: ["0:iops=5"],
  NETWORKS: ["none"],
  NETBOOT: "first",
  NETBOOT_DIR: "/srv",
  NETBOOT_FILE: "x",
};

test("a setting at its default is not recorded", async () => {
  const { settings } = await create({});
  expect(Object.keys(settings).filter((name) => name in CHANGED)).toEqual([]);
});

test("a changed setting is recorded", async () => {
  const lines = Object.entries(CHANGED).map(([name, value]) => `${name}=${[value].flat().join(" ")}\n`);
  place.write("home/.config/vm-unit-test.conf", lines.join(""));
  expect((await create({})).settings).toMatchObject(CHANGED);
});

/** A raw disk of zeroes. */
function blank(name: string): string {
  const path = place.write(`host/${name}`, "");
  truncateSync(path, 1 << 20);
  return path;
}

test("[compat] own disks are BUS=disk-N.img: hooks edit that text", async () => {
  const { settings } = await create({});
  expect(settings.IMAGES).toEqual(["AHCI=disk-0.img", "VIRT=disk-1.img"]);
});

test("[compat] the ISO is recorded as typed", async () => {
  blank("image.iso");
  expect((await create({}, { iso: "image.iso" })).settings.ISO).toBe("image.iso");
});

test("[compat] an image typed before create is not recorded, and applies to the rest of the batch", async () => {
  blank("data.img");
  const { settings, context } = await create({}, { images: ["SCSI=data.img"] });
  expect(settings.IMAGES).toEqual(["AHCI=disk-0.img", "VIRT=disk-1.img"]);
  expect(context.options.additions.IMAGES).toEqual(["SCSI=data.img"]);
});

test("an image typed after create is recorded, with its path in HOSTDIR and its format", async () => {
  blank("data.img");
  const { settings, context } = await create({ image: ["SCSI=data.img", "NVME=@MEDIA@/x.img"] });
  expect(settings.IMAGES).toEqual([
    "AHCI=disk-0.img",
    "VIRT=disk-1.img",
    "SCSI=raw=@HOSTDIR@/data.img",
    "NVME=@MEDIA@/x.img",
  ]);
  expect(settings.IMAGE_FORMATS).toBeUndefined();
  expect(context.options.additions.IMAGES).toEqual([]);
});

test.each([
  ["an image", (name: string) => create({ image: [`VIRT=${name}`] })],
  ["a source", (name: string) => create({ from: name })],
  ["a CD", (name: string) => create({}, { iso: name })],
] as const)("a web page as %s: 74, and nothing is made", async (_title, make) => {
  place.write("host/page.img", "<html>404</html>\n");
  const before = place.names();
  const failure = await failureOf(() => make("page.img"));
  expect({ status: failure.exitCode, message: failure.message }).toEqual({
    status: 74,
    message: expect.stringContaining('it is text that starts with "<html>404</html>'),
  });
  expect(place.names()).toEqual(before);
});

test("accepts a web page that is declared as raw", async () => {
  place.write("host/page.img", "<html>404</html>\n");
  const { settings } = await create({ image: ["VIRT=raw=page.img"] });
  expect(settings.IMAGES).toContain("VIRT=raw=@HOSTDIR@/page.img");
});

test("a disk image as a CD: 74, and the hint creates a VM from it", async () => {
  Bun.spawnSync(["qemu-img", "create", "-q", "-f", "qcow2", join(place.host, "a.qcow2"), "1M"]);
  const failure = await failureOf(() => create({}, { iso: "a.qcow2" }));
  expect(failure.exitCode).toBe(74);
  expect(failure.hint).toContain(`create NAME --from=${join(place.host, "a.qcow2")}`);
});

test("ssh logs in as the user that cloud-init creates", async () => {
  mkdirSync(place.path("home/.ssh"), { recursive: true });
  writeFileSync(place.path("home/.ssh/id_ed25519.pub"), "ssh-ed25519 AAAA me\n");
  expect((await create({ user: "me" })).settings.SSH_USER).toBe("me");
});

test("status: a truncated or missing disk is broken", async () => {
  const { context } = await create({});
  expect(await readVmStatus(context, place.host)).toMatchObject({ state: "created" });
  const disk = join(place.host, ".work/disk-1.img");
  truncateSync(disk, 1000);
  expect(await readVmStatus(context, place.host)).toMatchObject({
    state: "broken",
    error: expect.stringContaining("disk-1.img is damaged"),
  });
  Bun.spawnSync(["rm", disk]);
  expect(await readVmStatus(context, place.host)).toMatchObject({
    state: "broken",
    error: expect.stringContaining("disk-1.img is missing"),
  });
});
