import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { exec } from "../../process/exec.ts";
import { readNamed } from "../../lib/read-file.ts";
import { findBelow, readBelow } from "./below.ts";
import { execOver, findHostProgram, requireHostProgram } from "./host.ts";
import { WARM_MODULES, MODULES } from "./module-list.ts";
import { moduleName, parseModuleGraph, resolveModules, type ModuleGraph } from "./module-graph.ts";
import { stripSignature } from "./signature.ts";

/**
 * Reads the dependencies of the modules below `directory` (lib/modules/VERSION).
 * @param scratch directory for a missing list: packages come without modules.dep
 * @param top limit for symlinks; see `findBelow`
 */
export async function loadModuleGraph(
  directory: string,
  scratch: string,
  top = directory,
): Promise<ModuleGraph> {
  const builtin = readBelow(directory, "modules.builtin", top);
  const listed = readBelow(directory, "modules.dep", top);
  if (listed) return parseModuleGraph(listed, builtin);
  const version = basename(directory);
  const base = join(scratch, `depmod-${version}`);
  mkdirSync(join(base, "lib", "modules"), { recursive: true });
  // Some builds of kmod search below usr/lib.
  mkdirSync(join(base, "usr"));
  symlinkSync("../lib", join(base, "usr", "lib"));
  symlinkSync(resolve(directory), join(base, "lib", "modules", version));
  const depmod = requireHostProgram("depmod", "kmod");
  const { stdout } = await exec([depmod, "-n", "-b", base, version], {
    what: `cannot read the dependencies of the modules in ${directory}`,
  });
  return parseModuleGraph(stdout, builtin);
}

/** Programs that decompress files in place, by suffix. */
const MODULE_UNPACKERS = [
  [".xz", "xz", ["-d", "-f"]],
  [".zst", "zstd", ["-d", "-q", "-f", "--rm"]],
  [".gz", "gzip", ["-d", "-f"]],
] as const;

/** The missing program that is needed to decompress a kernel's modules. */
export function missingUnpacker(graph: ModuleGraph): (typeof MODULE_UNPACKERS)[number][1] | undefined {
  const files = resolveModules(graph, MODULES);
  return MODULE_UNPACKERS.find(
    ([ending, program]) => files.some((file) => file.endsWith(ending)) && !findHostProgram(program),
  )?.[1];
}

/** Does the kernel load unsigned modules, by its configuration? */
export function allowsUnsigned(version: string, directories: readonly string[]): boolean {
  const files = directories.flatMap((directory) => [
    join(directory, `config-${version}`),
    join(directory, "config"),
  ]);
  for (const file of files) {
    try {
      return !/^CONFIG_MODULE_SIG_FORCE=y$/m.test(readNamed(file).toString());
    } catch {
      // Missing or unreadable: try the next one.
    }
  }
  return false;
}

/**
 * Copies modules into the tree of the rescue, decompressed, with the lists for modprobe, and writes the names of those
 * of a saved state to /etc/rescue/modules-warm.
 */
export async function stageModules(options: {
  root: string;
  version: string;
  directory: string;
  /** Limit for symlinks; see `findBelow`. */
  top: string;
  kernel: string;
  graph: ModuleGraph;
}): Promise<void> {
  const { root, version, directory, top, kernel, graph } = options;
  const to = join(root, "usr/lib/modules", version);
  mkdirSync(to, { recursive: true });
  const files = resolveModules(graph, MODULES);
  const lists = ["modules.builtin", "modules.builtin.modinfo", "modules.order"].filter(
    (name) => findBelow(directory, name, top) !== undefined,
  );
  for (const file of files) findBelow(directory, file, top);
  const what = "cannot copy the kernel's modules";
  await execOver(["cp", "-L", "--parents", "-t", to, "--"], [...files, ...lists], { cwd: directory, what });
  for (const [ending, program, args] of MODULE_UNPACKERS) {
    const packed = files.filter((file) => file.endsWith(ending));
    if (packed.length === 0) continue;
    const unpack = requireHostProgram(program, program);
    await execOver([unpack, ...args, "--"], packed, { cwd: to, what: "cannot unpack the kernel's modules" });
  }
  if (allowsUnsigned(version, [directory, dirname(kernel), "/boot"]))
    for (const file of files) stripSignature(join(to, file.replace(/\.ko\.\w+$/, ".ko")));
  const depmod = requireHostProgram("depmod", "kmod");
  await exec([depmod, "-b", root, version], { what: "cannot list the rescue's modules" });
  const warm = WARM_MODULES.filter((name) => graph.paths.has(moduleName(name)));
  mkdirSync(join(root, "etc/rescue"), { recursive: true });
  writeFileSync(join(root, "etc/rescue/modules-warm"), warm.map((name) => `${name}\n`).join(""));
}
