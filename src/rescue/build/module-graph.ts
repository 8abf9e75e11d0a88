import { basename } from "node:path";

/** `kernel/fs/nls/nls_iso8859-1.ko.xz` → `nls_iso8859_1`: the kernel treats `-` and `_` as equal. */
export const moduleName = (pathOrName: string): string =>
  basename(pathOrName)
    .replace(/\.ko(\.\w+)?$/, "")
    .replaceAll("-", "_");

/** Dependencies of a kernel's modules. */
export interface ModuleGraph {
  /** Path below the modules directory, by name. */
  paths: ReadonlyMap<string, string>;
  /** Paths of the dependencies of a module, by its path. */
  needs: ReadonlyMap<string, readonly string[]>;
  /** Names of built-in modules. */
  builtin: ReadonlySet<string>;
}

/** Parses modules.dep(5) (or the output of `depmod --dry-run`, which has more after it) and modules.builtin. */
export function parseModuleGraph(dependencies: string, builtin: string): ModuleGraph {
  const paths = new Map<string, string>();
  const needs = new Map<string, string[]>();
  for (const [, path, words] of dependencies.matchAll(/^([^\s:]+\.ko(?:\.\w+)?):(.*)$/gm)) {
    paths.set(moduleName(path!), path!);
    needs.set(path!, words!.split(/\s+/).filter(Boolean));
  }
  return { paths, needs, builtin: new Set(builtin.split("\n").filter(Boolean).map(moduleName)) };
}

/** Neither a module nor built in. */
export const missingModules = ({ paths, builtin }: ModuleGraph, names: readonly string[]): string[] =>
  names.filter((name) => !paths.has(moduleName(name)) && !builtin.has(moduleName(name)));

/** Paths of modules with their dependencies, sorted; unknown names are ignored. */
export function resolveModules({ paths, needs }: ModuleGraph, names: readonly string[]): string[] {
  const found = new Set<string>();
  const waiting = names.flatMap((name) => paths.get(moduleName(name)) ?? []);
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (found.has(path)) continue;
    found.add(path);
    waiting.push(...(needs.get(path) ?? []));
  }
  return [...found].toSorted();
}
