import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { guests, Sandbox } from "./harness.ts";

test.each(["x86_64", "i386", "i686"])(
  "a guest of %s boots from the CD and then from its disk",
  async (arch) => {
    using box = new Sandbox();
    const { installerIso } = await guests();
    const options = [`--arch=${arch}`, "--port=", "--memory=128M", "--disks=VIRT=64M"];
    await box.ok([...options, "@create", "G", installerIso, "@run"]);
    expect(box.console()).toBe("BOOTED FROM CD\nINSTALLED\n");
    // The architecture of `create` applies without the option.
    await box.ok(["run"]);
    expect(box.console()).toBe("BOOTED FROM DISK\nRUN 1\n");
    const program = arch === "x86_64" ? "qemu-system-x86_64" : "qemu-system-i386";
    expect(readFileSync(join(box.work, "run-vm.sh"), "utf8")).toContain(`exec ${program} `);
  },
);
