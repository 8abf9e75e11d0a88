import { basename, dirname, join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { installHint, PACKAGES, type Thing } from "../../lib/packages.ts";
import { exec } from "../../process/exec.ts";
import { readNamed, withFile } from "../../lib/read-file.ts";
import { requireHostProgram } from "./host.ts";
import { findLibraries } from "./libraries.ts";
import { DATA, EXTRA_TOOLS, HELPERS, NO_APPLETS, REQUIRED_TOOLS, TOOLS } from "./tools.ts";
import type { SystemRoot } from "./system-root.ts";
import { mergedPath, type Tree } from "./tree.ts";

/** A busybox has about 2 MiB. */
const MAX_PROGRAM_BYTES = 64 << 20;

/** Libraries in other directories are found through the host's ld.so.conf, which the rescue does not have. */
const LOADER_LOOKS_THERE = /^\/usr\/lib(32|64|x32)?(\/[^/]+-linux-(gnu|musl)[^/]*)?(\/ossl-modules)?$/;

/** Can the rescue run it: a readable shell script or ELF program? */
function canRun(path: string): boolean {
  try {
    const start = withFile(path, (read) => read(0, 128)).toString("latin1");
    return start.startsWith("\x7fELF") || /^#! ?\/(usr\/)?bin\/(env )?(ba|da)?sh\b/.test(start);
  } catch {
    return false;
  }
}

/** Puts the named programs into the tree, or into `missing`. @returns paths in the system that must be copied */
function collect(system: SystemRoot, tree: Tree, names: readonly string[], missing: string[]): string[] {
  const files: string[] = [];
  for (const name of names) {
    const path = system.find(name);
    const real = path && system.resolve(path);
    // On a host with symlinks to busybox they are added as applets, below.
    if (!path || !real || (basename(real) === "busybox" && name !== "busybox") || !canRun(system.at(real))) {
      missing.push(name);
      continue;
    }
    const place = mergedPath(path).replace(/^\/usr\/local\//, "/usr/");
    files.push(real);
    if (mergedPath(real) !== place) tree.link(place, mergedPath(real));
  }
  return files;
}

/** Installs modprobe outside the kernel's search path, until init moves it there. @returns paths to copy */
function stageModprobe(system: SystemRoot, tree: Tree): string {
  const path = system.isHost ? requireHostProgram("modprobe", "kmod") : system.find("modprobe");
  const real = path && system.resolve(path);
  if (!real) throw missingTool(system, "modprobe", "kmod");
  tree.link("/usr/lib/rescue/modprobe", mergedPath(real));
  return real;
}

/** A path of the system, if it exists. */
const isIn =
  (system: SystemRoot) =>
  (path: string): boolean =>
    system.resolve(path) !== undefined;

const missingTool = ({ isHost, root }: SystemRoot, name: string, thing: Thing): VmError =>
  new VmError(
    "unavailable",
    `cannot build the rescue: ${name} is not ${isHost ? "installed" : `in ${root}`}`,
    {
      hint: isHost
        ? installHint(PACKAGES[thing])
        : `unpack its package there; ${installHint(PACKAGES[thing])}`,
    },
  );

/**
 * Fills the tree with programs of a system, their libraries, and symlinks to busybox for the rest.
 * @returns names of tools that neither the system nor busybox has
 * @throws VmError if busybox or bash is missing
 */
export async function stageUserland(system: SystemRoot, tree: Tree): Promise<string[]> {
  const missing: string[] = [];
  const programs = collect(system, tree, [...REQUIRED_TOOLS, ...TOOLS], missing);
  for (const name of REQUIRED_TOOLS) if (missing.includes(name)) throw missingTool(system, name, name);
  programs.push(...collect(system, tree, EXTRA_TOOLS, []));
  programs.push(stageModprobe(system, tree));
  programs.push(...HELPERS.filter(isIn(system)));
  const libraries = await findLibraries(system, [...new Set(programs)]);
  await tree.copy(system, [...programs, ...libraries, ...DATA.filter(isIn(system))]);
  for (const library of libraries) {
    const place = mergedPath(library);
    if (LOADER_LOOKS_THERE.test(dirname(place))) continue;
    for (const directory of ["/usr/lib", "/usr/lib64"]) tree.link(join(directory, basename(place)), place);
  }
  // In /bin on Alpine, in /usr/sbin elsewhere; in the rescue always at the same path.
  const busybox = system.resolve(system.find("busybox")!)!;
  tree.link("/usr/bin/busybox", mergedPath(busybox));
  const has = (name: string): boolean =>
    ["/usr/bin", "/usr/sbin"].some((directory) => tree.has(join(directory, name)));
  for (const name of await listApplets(system, busybox)) {
    if (!NO_APPLETS.includes(name) && !has(name)) tree.link(join("/usr/bin", name), "/usr/bin/busybox");
  }
  return missing.filter((name) => !has(name));
}

/** Applets of a busybox. One of another architecture is parsed, not run. */
async function listApplets(system: SystemRoot, busybox: string): Promise<string[]> {
  if (!system.isHost) return parseApplets(readNamed(system.at(busybox), MAX_PROGRAM_BYTES));
  const { stdout } = await exec([busybox, "--list"], { what: "cannot list the applets of busybox" });
  return stdout
    .split("\n")
    .filter(Boolean)
    .map((path) => basename(path));
}

/** A busybox contains the names of its applets in sequence, sorted, starting with `[` (applet_tables.c). */
export function parseApplets(program: Buffer): string[] {
  const first = "[\0[[\0";
  for (let at = program.indexOf(first, 0, "latin1"); at >= 0; at = program.indexOf(first, at + 1, "latin1")) {
    const names = program.toString("latin1", at, program.indexOf("\0\0", at, "latin1")).split("\0");
    if (names.includes("cat")) return names;
  }
  return [];
}
