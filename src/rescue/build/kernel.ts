import { readdirSync, realpathSync, statSync } from "node:fs";
import { release } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { hasErrno, VmError, type ErrorReason } from "../../lib/errors.ts";
import { installHint, kernelPackages } from "../../lib/packages.ts";
import type { Arch } from "../../machine/types.ts";
import { BZIMAGE_HEADER_BYTES, parseBzImage, type BzImage } from "./bzimage.ts";
import { isKernelOf } from "../kernel-arch.ts";
import { isBelow } from "./below.ts";
import { exists } from "./host.ts";
import { missingModules, type ModuleGraph } from "./module-graph.ts";
import { ESSENTIAL_MODULES } from "./module-list.ts";
import { loadModuleGraph } from "./modules.ts";
import { withFile } from "../../lib/read-file.ts";

export interface Kernel {
  /** The boot image. */
  file: string;
  /** The release, as in `uname -r`. */
  version: string;
  /** Header of an x86 image; absent for others. */
  image: BzImage | undefined;
  /** lib/modules/VERSION. */
  modules: string;
  /** Limit for symlinks there. */
  top: string;
  graph: ModuleGraph;
}

/** A boot image, and possible directories of its modules. */
interface KernelImage {
  file: string;
  modules: readonly string[];
}

const kernelHint = (arch: Arch): string =>
  [
    "install a kernel with 9p and virtio modules (no cloud kernel; Fedora: kernel-modules as well), or unpack its package and name that directory",
    installHint(kernelPackages(arch)),
  ]
    .filter((line) => line !== undefined)
    .join("\n");
const UNREADABLE_HINT =
  "copy a kernel that only root can read, as on Ubuntu, and use --kernel=COPY: sudo install -m 644 /boot/vmlinuz-VERSION COPY";

/** Those of this host: driver packages put symlinks there. */
const HOST_MODULES = /^(\/usr)?\/lib\/modules\/[^/]+$/;

const IMAGE_NAME = /^vmlinu[xz]/;

const listNames = (directory: string): string[] => {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
};

/** Newest first. */
const byVersion = (names: readonly string[]): string[] =>
  names.toSorted((a, b) => b.localeCompare(a, "en", { numeric: true }));

/** Possible directories of a version's modules below some roots, such as `/` or an unpacked package. */
const modulePlaces = (roots: readonly string[], version: string): string[] =>
  roots.flatMap((root) => [join(root, "usr/lib/modules", version), join(root, "lib/modules", version)]);

/** All boot images below a root, the running kernel's first, then the newest. */
function candidatesBelow(root: string): KernelImage[] {
  const trees = ["usr/lib/modules", "lib/modules"].map((path) => join(root, path));
  const versions = byVersion([...new Set(trees.flatMap(listNames))]);
  const running = release();
  const inTrees = (version: string): string[] => trees.map((tree) => join(tree, version, "vmlinuz"));
  const images = [running, ...versions].flatMap((version) => [
    ...inTrees(version),
    join(root, "boot", `vmlinuz-${version}`),
    join(root, "boot", `vmlinux-${version}`),
  ]);
  // Some distributions name images by flavour (Alpine: vmlinuz-lts): the header has the version.
  const others = byVersion(listNames(join(root, "boot")).filter((name) => IMAGE_NAME.test(name)));
  const files = [...images, ...others.map((name) => join(root, "boot", name))].filter(exists);
  const seen = new Set<string>();
  return files
    .filter((file) => seen.size < seen.add(realpathSync(file)).size)
    .map((file) => ({ file, modules: [] }));
}

function candidates(kernel: string | undefined, modules: string | undefined): [KernelImage[], string[]] {
  if (kernel !== undefined) {
    const stats = statSync(kernel, { throwIfNoEntry: false });
    if (!stats) throw new VmError("noInput", `cannot read the kernel ${kernel}: no such file`);
    if (stats.isDirectory()) return [candidatesBelow(kernel), [kernel]];
    const directory = dirname(resolve(kernel));
    return [[{ file: kernel, modules: [directory] }], [dirname(directory), directory, "/"]];
  }
  if (modules === undefined) return [candidatesBelow("/"), ["/"]];
  const directory = resolve(modules);
  const version = basename(directory);
  const roots = [join(directory, "../../.."), join(directory, "../../../.."), "/"];
  const files = [
    join(directory, "vmlinuz"),
    ...roots.map((root) => join(root, "boot", `vmlinuz-${version}`)),
  ];
  return [files.filter(exists).map((file) => ({ file, modules: [] })), roots];
}

/** What a boot image is, or why it cannot be used; `denied`: another user could read it. */
function readImage(
  file: string,
  arch: Arch,
): Pick<Kernel, "version" | "image"> | { problem: string; denied?: true } {
  try {
    const bytes = withFile(file, (read) => read(0, BZIMAGE_HEADER_BYTES));
    const image = parseBzImage(bytes);
    const version = image?.version ?? versionInPath(file);
    return isKernelOf(arch, bytes) && version !== undefined
      ? { version, image }
      : { problem: `${file} is not a boot image for ${arch}` };
  } catch (error) {
    if (hasErrno(error, "EACCES")) return { problem: `${file} can be read by root only`, denied: true };
    return { problem: `${file} cannot be read` };
  }
}

/** `…/modules/VERSION/vmlinuz`, `…/vmlinuz-VERSION` */
const versionInPath = (file: string): string | undefined =>
  /\/modules\/([^/]+)\/vmlinu[xz]$|\/vmlinu[xz]-([^/]+)$/.exec(file)?.slice(1).find(Boolean);

/**
 * Finds a kernel whose modules are there and can reach the host's directories.
 * @param kernel a boot image, or a directory into which a kernel's package was unpacked; else the host's own
 * @param modules a directory lib/modules/VERSION
 * @throws 69 with what each one lacks; `denied` where another user could read one
 */
export async function findKernel(options: {
  kernel?: string | undefined;
  modules?: string | undefined;
  /** The architecture of the kernel. */
  arch: Arch;
  scratch: string;
}): Promise<Kernel> {
  const { kernel, modules, arch, scratch } = options;
  if (modules !== undefined && !exists(modules))
    throw new VmError("noInput", `cannot read the modules in ${modules}: no such directory`);
  const [found, roots] = candidates(kernel, modules);
  const problems = new Set<string>();
  let reason: ErrorReason | undefined;
  // With an unpacked package, nothing is taken from elsewhere.
  const unpacked = kernel !== undefined && statSync(kernel).isDirectory() ? realpathSync(kernel) : undefined;
  for (const { file, modules: near } of found) {
    if (unpacked !== undefined && !isBelow(realpathSync(file), unpacked)) {
      problems.add(`${file} is a symlink to a file outside ${unpacked}`);
      continue;
    }
    const read = readImage(file, arch);
    if ("problem" in read) {
      problems.add(read.problem);
      if (read.denied) reason = "denied";
      continue;
    }
    const { version } = read;
    const places = modules === undefined ? [...near, ...modulePlaces(roots, version)] : [modules];
    const directory = places
      .filter(exists)
      .map((place) => realpathSync(place))
      .find((place) => basename(place) === version);
    if (directory === undefined) {
      problems.add(`${file} is Linux ${version}: its modules are not in ${modules ?? "any place known"}`);
      continue;
    }
    const top = unpacked ?? (HOST_MODULES.test(directory) ? "/" : directory);
    if (!isBelow(directory, top)) {
      problems.add(`${file} is Linux ${version}: its modules are in ${directory}, outside of ${top}`);
      continue;
    }
    const graph = await loadModuleGraph(directory, scratch, top);
    const missing = missingModules(graph, ESSENTIAL_MODULES);
    if (missing.length === 0) return { file, ...read, modules: directory, top, graph };
    problems.add(`${file} is Linux ${version}, without ${missing.join(", ")}`);
  }
  const lines = [...problems];
  if (found.length === 0)
    lines.push(`no boot image in ${roots.map((root) => join(root, "boot")).join(", ")}`);
  const hint = reason === "denied" ? `${UNREADABLE_HINT}\n${kernelHint(arch)}` : kernelHint(arch);
  const details = lines.length > 0 ? `:\n  ${lines.join("\n  ")}` : "";
  throw new VmError("unavailable", `cannot build the rescue: no suitable kernel${details}`, { hint, reason });
}
