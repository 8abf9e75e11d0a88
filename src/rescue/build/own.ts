import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { ARCH } from "../../machine/arch.ts";
import { exec } from "../../process/exec.ts";
import { ARCHES, type Arch } from "../../machine/types.ts";
import { parseElfBits, parseElfMachine } from "./elf.ts";
import { withFile } from "../../lib/read-file.ts";
import { requireHostProgram, together } from "./host.ts";
import type { Compression } from "../choices.ts";
import { packInitrd, resolvePacker } from "./initrd.ts";
import { findKernel } from "./kernel.ts";
import { stageModules } from "./modules.ts";
import { SystemRoot } from "./system-root.ts";
import { Tree } from "./tree.ts";
import { stageUserland } from "./userland.ts";
import { extractVmlinux } from "./vmlinux.ts";

export interface OwnRescueOptions {
  /** An empty directory (0700) for vmlinuz, vmlinux and initrd.img. */
  out: string;
  /** A boot image, or a directory with an unpacked kernel package; default: the host's kernel. */
  kernel?: string | undefined;
  /** lib/modules/VERSION, if it is not beside the kernel. */
  modules?: string | undefined;
  compress: Compression;
  /** Our scripts: path in the rescue → text. */
  scripts: Readonly<Record<string, string>>;
  /** A directory (0700) to work in; the caller removes it. */
  scratch: string;
  /** Architecture of the guests. */
  arch: Arch;
  /** Directory with unpacked packages of such a system; absent: programs of this host. */
  root?: string | undefined;
}

export interface OwnRescue {
  kernelVersion: string;
  /** Whether the uncompressed kernel exists; undefined if it is not needed. */
  vmlinux: boolean | undefined;
  /** Tools that neither the system nor busybox has. */
  missing: string[];
}

/**
 * Builds a rescue system from the kernel and programs of this host, or of another system; needs read permission only.
 * @throws VmError 69 if something required is missing, 66 if a given file does not exist
 */
export async function buildOwnRescue(options: OwnRescueOptions): Promise<OwnRescue> {
  const { out, modules, compress, scripts, scratch, arch } = options;
  const system = new SystemRoot(options.root ?? "/");
  const packer = resolvePacker(compress);
  const busybox = requireBusybox(system, arch);
  const kernel = options.kernel ?? (modules === undefined ? options.root : undefined);
  const found = await findKernel({ kernel, modules, arch, scratch });
  if (found.image?.wide === false && parseElfBits(busybox) === 64)
    throw new VmError(
      "unavailable",
      `cannot build the rescue: ${found.file} is a 32-bit kernel, but the programs are 64-bit`,
    );
  const root = join(scratch, "root");
  mkdirSync(root);
  const tree = new Tree(root);
  const { version } = found;
  const vmlinuz = join(out, "vmlinuz");
  const [vmlinux, missing] = await together([
    extractVmlinux(found, join(out, "vmlinux"), scratch),
    stageUserland(system, tree),
    stageModules({
      root,
      version,
      directory: found.modules,
      top: found.top,
      kernel: found.file,
      graph: found.graph,
    }),
    exec(["cp", "-L", "--", found.file, vmlinuz], { what: "cannot copy the kernel" }),
  ]);
  chmodSync(vmlinuz, 0o600);
  await tree.seal();
  for (const [path, text] of Object.entries(scripts)) tree.write(path, text, 0o755);
  await packInitrd({ root, to: join(out, "initrd.img"), packer, scratch });
  return { kernelVersion: version, vmlinux: found.image && vmlinux, missing };
}

/** The head of the system's busybox. @throws 69 if there is none, or it is of another architecture */
function requireBusybox(system: SystemRoot, arch: Arch): Buffer {
  const path = system.find("busybox");
  const found = path === undefined ? undefined : system.resolve(path);
  if (found === undefined) {
    if (!system.isHost) throw new VmError("noInput", `cannot find busybox in ${system.root}: ${UNPACK_HINT}`);
    requireHostProgram("busybox", "busybox");
  }
  const at = system.at(found ?? "/");
  const head = withFile(at, (read) => read(0, 64));
  const { elfMachine } = ARCH[arch];
  if (parseElfMachine(head) === elfMachine) return head;
  const other = ARCHES.find((one) => ARCH[one].elfMachine === parseElfMachine(head));
  throw new VmError(
    "unavailable",
    `cannot build a rescue for ${arch} guests from ${at}: it is ${other ? `a program for ${other}` : `not a program for ${arch}`}`,
    {
      hint: system.isHost ? `use another system: --root=DIR; ${UNPACK_HINT}` : UNPACK_HINT,
    },
  );
}

const UNPACK_HINT =
  "unpack packages of such a system into a directory: a kernel, busybox, bash, kmod and others for jobs (mmdebstrap --variant=extract)";
