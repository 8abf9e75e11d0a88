import { appendFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import type { Sandbox } from "./harness.ts";
import { shell } from "./tools.ts";

/** The guest's script in an initramfs of its own, behind that of the kernel: it needs no share. */
export async function buildInitrd(box: Sandbox, { initrd }: Guests, script: string): Promise<string> {
  const path = join(box.top, "initrd.img");
  mkdirSync(join(box.top, "root/in"), { recursive: true });
  writeFileSync(join(box.top, "root/in/guest.sh"), script);
  cpSync(initrd, path);
  // The kernel expects archives at multiples of 4 bytes.
  appendFileSync(path, Buffer.alloc(-readFileSync(path).length & 3));
  await shell(`cd ${box.top}/root && find . | cpio -o -H newc --quiet | gzip >>${path}`, box.top);
  return path;
}
