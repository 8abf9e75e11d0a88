import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { ARCH } from "../../machine/arch.ts";
import { exec } from "../../process/exec.ts";
import { parseElfBits, withFile } from "./elf.ts";
import { requireHostProgram, together } from "./host.ts";
import { packInitrd, resolvePacker, type Compression } from "./initrd.ts";
import { findKernel } from "./kernel.ts";
import { stageModules } from "./modules.ts";
import { Tree } from "./tree.ts";
import { stageUserland } from "./userland.ts";
import { extractVmlinux } from "./vmlinux.ts";
import { REQUIRED_TOOLS } from "./tools.ts";

export interface OwnRescueOptions {
  /** An empty directory (0700) for vmlinuz, vmlinux and initrd.img. */
  out: string;
  /** A boot image, or a directory with an unpacked kernel package; the host's own by default. */
  kernel?: string | undefined;
  /** lib/modules/VERSION, where it is not beside the kernel. */
  modules?: string | undefined;
  compress: Compression;
  /** Programs of ours: path in the rescue → text. */
  scripts: Readonly<Record<string, string>>;
  /** A directory (0700) to work in; the caller removes it. */
  scratch: string;
  /** `uname -m`. */
  hostArch: string;
}

export interface OwnRescue {
  kernelVersion: string;
  /** The uncompressed kernel is there too. */
  vmlinux: boolean;
  /** Tools that this host has not, nor busybox. */
  missing: string[];
}

/**
 * Builds a rescue system from this host's kernel and programs; needs no rights beyond reading them.
 * @throws VmError 69 when something it cannot do without is not there, 66 when a named file is not
 */
export async function buildOwnRescue(options: OwnRescueOptions): Promise<OwnRescue> {
  const { out, kernel, modules, compress, scripts, scratch, hostArch } = options;
  if (!Object.values(ARCH).some(({ kvmHosts }) => kvmHosts.some((host) => host === hostArch)))
    throw new VmError("unavailable", `a rescue cannot be built from the programs of a ${hostArch} host`, {
      hint: "use a rescue ISO here",
    });
  const packer = resolvePacker(compress);
  const busybox = requireHostProgram("busybox", REQUIRED_TOOLS.busybox);
  const found = await findKernel({ kernel, modules, scratch });
  if (!found.image.wide && withFile(busybox, (read) => parseElfBits(read(0, 64))) === 64)
    throw new VmError("unavailable", `${found.file} is a 32-bit kernel, and this host's programs are 64-bit`);
  const root = join(scratch, "root");
  mkdirSync(root);
  const tree = new Tree(root);
  const { version } = found.image;
  const vmlinuz = join(out, "vmlinuz");
  const [vmlinux, missing] = await together([
    extractVmlinux(found, join(out, "vmlinux"), scratch),
    stageUserland(tree),
    stageModules({ root, version, directory: found.modules, kernel: found.file, graph: found.graph }),
    exec(["cp", "-L", "--", found.file, vmlinuz], { what: "cannot copy the kernel" }),
  ]);
  chmodSync(vmlinuz, 0o600);
  await tree.seal();
  for (const [path, text] of Object.entries(scripts)) tree.write(path, text, 0o755);
  await packInitrd({ root, to: join(out, "initrd.img"), packer, scratch });
  return { kernelVersion: version, vmlinux, missing };
}
