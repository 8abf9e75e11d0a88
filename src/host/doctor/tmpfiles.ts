/** Does systemd-tmpfiles remove old files where working files are? tmpfiles.d(5). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { exec, findProgram } from "../../process/exec.ts";
import { listDirectory } from "../../store/files.ts";
import { readSmall, realPath } from "../../lib/read-file.ts";
import type { Check } from "./check.ts";

/** A line of a configuration file, with that file. */
interface TmpfilesLine {
  file: string;
  words: string[];
}

/** The rule that removes old files in a directory. */
export interface Aging {
  /** As written: `10d`. */
  age: string;
  file: string;
  /** The directory that is cleaned: this one or a parent. */
  path: string;
}

/** By precedence: a file overrides those of the same name in later directories. */
const DIRECTORIES = ["/etc", "/run", "/usr/local/lib", "/usr/lib"].map((top) => join(top, "tmpfiles.d"));

/** A sample name of a working directory. */
const SAMPLE = "vm-0123abcd-4567ef89";

/** Pattern of all working directories, for a rule to paste. */
const PATTERN = "vm-????????-????????";

/** One line of `doctor`. */
export async function checkAging(tmpdir: string): Promise<Check> {
  const common = { name: "tmpfiles", needed: false, use: "working files" };
  const directory = realPath(tmpdir) ?? tmpdir;
  // Without systemd these files are not used.
  const aging = existsSync("/run/systemd/system") ? findAging(await readConfig(), directory) : undefined;
  if (!aging) return { ...common, state: "ok", detail: `no old files are removed in ${directory}` };
  const fix = `echo 'x ${directory}/${PATTERN}' | sudo tee /etc/tmpfiles.d/vm-working-files.conf`;
  const what = `systemd-tmpfiles removes files older than ${aging.age} in ${aging.path} (${aging.file}), also disks of VMs that are off`;
  return { ...common, state: "limited", detail: `${what}; keep them: ${fix}` };
}

/** All files in force, as printed by `systemd-tmpfiles --cat-config`: each after a line `# /path`. */
async function readConfig(): Promise<string> {
  const program = findProgram("systemd-tmpfiles");
  if (program) {
    const { status, stdout } = await exec([program, "--cat-config", "--no-pager"], { anyStatus: true });
    if (status === 0) return stdout;
  }
  return joinFiles(DIRECTORIES);
}

/** The same from directories by precedence: each file name is read once. */
export function joinFiles(directories: readonly string[]): string {
  const files = new Map<string, string>();
  for (const directory of directories)
    for (const name of listDirectory(directory))
      if (name.endsWith(".conf") && !files.has(name)) files.set(name, join(directory, name));
  return [...files.keys()]
    .toSorted()
    .map((name) => `# ${files.get(name)}\n${readTextOrNothing(files.get(name)!)}\n`)
    .join("");
}

function readTextOrNothing(path: string): string {
  try {
    return readSmall(path) ?? "";
  } catch {
    // A symlink to /dev/null masks a file; an unreadable file is ignored.
    return "";
  }
}

function parseLines(text: string): TmpfilesLine[] {
  let file = "";
  return text.split("\n").flatMap((line) => {
    const head = /^# (\/.*\.conf)$/.exec(line)?.[1];
    if (head !== undefined) file = head;
    if (/^\s*(#|$)/.test(line)) return [];
    const words = [...line.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S+)/g)].map(
      (match) => match[1] ?? match[2] ?? match[3]!,
    );
    return [{ file, words }];
  });
}

/** Specifiers of directories for temporary files. */
const expand = (path: string): string =>
  path
    .replaceAll("%T", "/tmp")
    .replaceAll("%V", "/var/tmp")
    .replaceAll("%%", "%")
    .replace(/(.)\/+$/, "$1");

const matches = (pattern: string, path: string): boolean => {
  try {
    return new Bun.Glob(pattern).match(path);
  } catch {
    return pattern === path;
  }
};

/** A path and all its parents. */
function withParents(path: string): string[] {
  const parts = path.split("/").slice(1);
  return parts.map((_part, index) => `/${parts.slice(0, parts.length - index).join("/")}`);
}

/**
 * Pure: finds the rule that removes old working files in `directory`, unless a rule of type x or X excludes them.
 * @param config as printed by `systemd-tmpfiles --cat-config`
 */
export function findAging(config: string, directory: string): Aging | undefined {
  const lines = parseLines(config).map(({ file, words: [type = "", path = "", , , , age = "-"] }) => ({
    file,
    // The type may be followed by modifiers such as ! and -.
    type: type.charAt(0),
    path: expand(path),
    age,
  }));
  const places = withParents(join(directory, SAMPLE));
  const kept = lines.some(
    ({ type, path }) =>
      // X excludes the directory only, and its contents only with a pattern for them.
      (type === "x" && places.some((place) => matches(path, place))) ||
      (type === "X" && matches(path, join(directory, SAMPLE, "disk-0.img"))),
  );
  if (kept) return undefined;
  const above = withParents(directory);
  // The rule for the nearest directory decides.
  for (const place of above) {
    const rule = lines.find(({ type, path }) => /[dDeqQvC]/.test(type) && matches(path, place));
    if (rule) return /^-?$/.test(rule.age) ? undefined : { age: rule.age, file: rule.file, path: place };
  }
  return undefined;
}
