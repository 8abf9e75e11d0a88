import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { findKernel } from "../../src/rescue/build/kernel.ts";
import { allowsUnsigned } from "../../src/rescue/build/modules.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

function bootImage(version: string): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(0x200, 0x20e);
  bytes.write(`${version} (builder)\0`, 0x400, "latin1");
  return bytes;
}

const GOOD = "kernel/net/9p/9pnet_virtio.ko:\nkernel/fs/9p/9p.ko:\n";
const PCI = "kernel/drivers/virtio/virtio_pci.ko\n";

/** An unpacked package of each version, with the list of its modules. */
function packages(temp: Temp, versions: Record<string, string>, modules = "lib/modules"): string {
  for (const [version, dependencies] of Object.entries(versions)) {
    temp.write(`boot/vmlinuz-${version}`, bootImage(version));
    temp.write(`${modules}/${version}/modules.dep`, dependencies);
    temp.write(`${modules}/${version}/modules.builtin`, PCI);
  }
  return temp.top;
}

test.each(["lib/modules", "usr/lib/modules"])(
  "selects the newest kernel with suitable modules, in %s",
  async (modules) => {
    using temp = new Temp();
    const versions = { "6.9.1-a": GOOD, "6.10.0-a": GOOD, "6.11.0-cloud": "kernel/fs/ext4/ext4.ko:\n" };
    const kernel = packages(temp, versions, modules);
    const found = await findKernel({ kernel, arch: "x86_64", scratch: temp.top });
    expect(found.file).toBe(temp.path("boot/vmlinuz-6.10.0-a"));
    expect(found.modules).toBe(temp.path(modules, "6.10.0-a"));
    expect(found.version).toBe("6.10.0-a");
  },
);

test("finds an image named by its flavour, and one beside its modules", async () => {
  using temp = new Temp();
  packages(temp, { "6.9.1-0-lts": GOOD });
  const image = temp.write("boot/vmlinuz-lts", bootImage("6.9.1-0-lts"));
  expect((await findKernel({ kernel: image, arch: "x86_64", scratch: temp.top })).modules).toEndWith(
    "/6.9.1-0-lts",
  );
  const beside = temp.write("lib/modules/6.9.1-0-lts/vmlinuz", bootImage("6.9.1-0-lts"));
  const modules = temp.path("lib/modules/6.9.1-0-lts");
  expect(await findKernel({ modules, arch: "x86_64", scratch: temp.top })).toMatchObject({
    file: beside,
    modules,
  });
});

test("names each unsuitable kernel, and what it lacks", async () => {
  using temp = new Temp();
  const kernel = packages(temp, { "6.9.1-a": "kernel/fs/9p/9p.ko:\n" });
  temp.write("boot/vmlinuz-6.8.0", bootImage("6.8.0"));
  temp.write("boot/vmlinuz-broken", "nothing");
  const failure = await failureOf(() => findKernel({ kernel, arch: "x86_64", scratch: temp.top }));
  expect(failure.code).toBe("unavailable");
  expect(failure.message).toContain("vmlinuz-6.9.1-a is Linux 6.9.1-a, without 9pnet_virtio\n");
  expect(failure.message).toContain("vmlinuz-6.8.0 is Linux 6.8.0: its modules are not");
  expect(failure.message).toContain("vmlinuz-broken is not a boot image for x86_64");
  expect(failure.hint).toContain("install a kernel");
});

test("rejects modules of another kernel", async () => {
  using temp = new Temp();
  packages(temp, { "6.9.1-a": GOOD, "6.9.2-a": GOOD });
  const options = { kernel: temp.path("boot/vmlinuz-6.9.1-a"), modules: temp.path("lib/modules/6.9.2-a") };
  const { message } = await failureOf(() => findKernel({ ...options, arch: "x86_64", scratch: temp.top }));
  expect(message).toContain("its modules are not in");
});

test.each(["kernel", "modules"])("reports a missing %s", async (what) => {
  using temp = new Temp();
  const failure = await failureOf(() =>
    findKernel({ [what]: temp.path("nowhere"), arch: "x86_64", scratch: temp.top }),
  );
  expect(failure.code).toBe("noInput");
  expect(failure.message).toContain("nowhere");
});

test("removes signatures only if the kernel's configuration allows that", () => {
  using temp = new Temp();
  const allows = (): boolean => allowsUnsigned("6.9.1-a", [temp.path("none"), temp.path("boot")]);
  expect(allows()).toBe(false);
  temp.write("boot/config-6.9.1-a", "CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_FORCE is not set\n");
  expect(allows()).toBe(true);
  temp.write("boot/config-6.9.1-a", "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\n");
  expect(allows()).toBe(false);
});

test("reads the version of other architectures' boot images from their names", async () => {
  using temp = new Temp();
  const kernel = packages(temp, { "6.1.0-arm64": GOOD });
  const image = temp.path("boot/vmlinuz-6.1.0-arm64");
  writeFileSync(image, `${"\0".repeat(56)}ARM\x64${"\0".repeat(900)}`);
  expect(await findKernel({ kernel, arch: "aarch64", scratch: temp.top })).toMatchObject({
    file: image,
    version: "6.1.0-arm64",
    image: undefined,
  });
  const { message } = await failureOf(() => findKernel({ kernel, arch: "riscv64", scratch: temp.top }));
  expect(message).toContain("is not a boot image for riscv64");
});
