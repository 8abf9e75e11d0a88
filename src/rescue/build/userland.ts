import { realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { exec } from "../../process/exec.ts";
import { withFile } from "./elf.ts";
import { exists, findSystemProgram, requireHostProgram } from "./host.ts";
import { findLibraries } from "./libraries.ts";
import { DATA, EXTRA_TOOLS, HELPERS, NO_APPLETS, REQUIRED_TOOLS, TOOLS } from "./tools.ts";
import { mergedPath, type Tree } from "./tree.ts";

/** Libraries elsewhere are found by entries of the host's ld.so.conf, which the rescue has not. */
const LOADER_LOOKS_THERE = /^\/usr\/lib(32|64|x32)?(\/[^/]+-linux-(gnu|musl)[^/]*)?(\/ossl-modules)?$/;

/** Can the rescue run it: a script of a shell, or an ELF program, which we may read? */
function canRun(path: string): boolean {
  try {
    const start = withFile(path, (read) => read(0, 128)).toString("latin1");
    return start.startsWith("\x7fELF") || /^#! ?\/(usr\/)?bin\/(env )?(ba|da)?sh\b/.test(start);
  } catch {
    return false;
  }
}

/** Puts the named programs into the tree, or into `missing`. @returns paths on the host that must be copied */
function collect(tree: Tree, names: readonly string[], missing: string[]): string[] {
  const files: string[] = [];
  for (const name of names) {
    const path = findSystemProgram(name);
    const real = path && realpathSync(path);
    // A host whose tools are busybox's links gets them as applets, below.
    if (!path || !real || (basename(real) === "busybox" && name !== "busybox") || !canRun(real)) {
      missing.push(name);
      continue;
    }
    const place = mergedPath(path).replace(/^\/usr\/local\//, "/usr/");
    files.push(real);
    if (mergedPath(real) !== place) tree.link(place, mergedPath(real));
  }
  return files;
}

/** Puts modprobe where the kernel does not look until init has put it where it does. @returns what must be copied */
function stageModprobe(tree: Tree): string {
  const real = realpathSync(requireHostProgram("modprobe", "kmod"));
  tree.link("/usr/lib/rescue/modprobe", mergedPath(real));
  return real;
}

/**
 * Fills the tree with programs of the host, the libraries they load, and links to busybox for all else.
 * @returns names of tools that neither the host nor busybox has
 * @throws VmError when busybox or bash is not there
 */
export async function stageUserland(tree: Tree): Promise<string[]> {
  const missing: string[] = [];
  const programs = collect(tree, [...Object.keys(REQUIRED_TOOLS), ...TOOLS], missing);
  for (const [name, packages] of Object.entries(REQUIRED_TOOLS)) {
    if (!missing.includes(name)) continue;
    throw new VmError("unavailable", `${name} is not installed: the rescue is made of it`, {
      hint: `install the package ${packages}`,
    });
  }
  programs.push(...collect(tree, EXTRA_TOOLS, []));
  programs.push(stageModprobe(tree));
  programs.push(...HELPERS.filter(exists));
  const libraries = await findLibraries([...new Set(programs)]);
  await tree.copy([...programs, ...libraries, ...DATA.filter(exists)]);
  for (const library of libraries) {
    const place = mergedPath(library);
    if (LOADER_LOOKS_THERE.test(dirname(place))) continue;
    for (const directory of ["/usr/lib", "/usr/lib64"]) tree.link(join(directory, basename(place)), place);
  }
  // Alpine's is in /bin, others' in /usr/sbin: ours has one place.
  const busybox = findSystemProgram("busybox")!;
  tree.link("/usr/bin/busybox", mergedPath(realpathSync(busybox)));
  const { stdout } = await exec([busybox, "--list"], { what: "cannot ask busybox what it can do" });
  const has = (name: string): boolean =>
    ["/usr/bin", "/usr/sbin"].some((directory) => tree.has(join(directory, name)));
  for (const applet of stdout.split("\n").filter(Boolean)) {
    const name = basename(applet);
    if (!NO_APPLETS.includes(name) && !has(name)) tree.link(join("/usr/bin", name), "/usr/bin/busybox");
  }
  return missing.filter((name) => !has(name));
}
