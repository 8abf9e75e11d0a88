/** Helpers for tests of qcow2 snapshots: a VM with a filled disk, and contents of images. */
import { join } from "node:path";
import type { Sandbox } from "./harness.ts";
import { configure, smallSandbox } from "./tools.ts";

export const DISK = "disk-0.img";

/** A VM with data on its disk of 64 MiB. */
export async function filled(options: readonly string[] = []): Promise<Sandbox> {
  const box = smallSandbox();
  configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\nSNAPSHOT_FORMAT=qcow2\n");
  await box.ok([...options, "create", "G"]);
  await write(box, "write -P 1 0 16M");
  return box;
}

/** Runs a program, and throws if it fails unless `anyStatus`. */
export async function run(argv: readonly string[], anyStatus = false): Promise<{ stdout: string }> {
  const child = Bun.spawn([...argv], { stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (status !== 0 && !anyStatus) throw new Error(`${argv.join(" ")}: ${stderr}`);
  return { stdout };
}

export const io = (image: string, ...commands: string[]): Promise<{ stdout: string }> =>
  run(["qemu-io", "-f", "qcow2", ...commands.flatMap((one) => ["-c", one]), image]);
export const write = (box: Sandbox, ...commands: string[]): Promise<{ stdout: string }> =>
  io(join(box.work, DISK), ...commands);

/** The guest-visible contents, including backing files. */
export async function content(box: Sandbox, image = join(box.work, DISK)): Promise<string> {
  const raw = join(box.top, "content.raw");
  await run(["qemu-img", "convert", "-O", "raw", image, raw]);
  // openssl takes a fifth of the time.
  const program = Bun.which("openssl") ? ["openssl", "dgst", "-sha256", "-r"] : ["sha256sum"];
  return (await run([...program, raw])).stdout.slice(0, 16);
}

export const manifest = (box: Sandbox, name: string): any =>
  JSON.parse(box.read("backups", name, "manifest.json"));
export const backing = async (image: string): Promise<string | undefined> =>
  JSON.parse((await run(["qemu-img", "info", "-U", "--output=json", image])).stdout)["backing-filename"];

/** A job that copies: not the one before it that looks for allocated clusters (src/live/allocated.ts). */
export const isCopy = ({ id }: { id: string }): boolean => !id.includes("scan");
