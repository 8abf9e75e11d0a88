/**
 * What a command line loads before its work: each module costs start-up time (scripts/bench start). What only some cases
 * need is imported by those, with `import()`.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const SOURCES = join(import.meta.dir, "../../src");
const scanner = new Bun.Transpiler({ loader: "ts" });

/** The build runs them. */
const MACROS = ["cli/version.ts", "cli/command-table.ts", "rescue/libexec-files.ts"];

/** All that is loaded with some modules of src: their own imports, and packages. */
function loadedWith(roots: readonly string[]): string[] {
  const loaded = new Set<string>();
  const add = (name: string): void => {
    if (loaded.has(name) || MACROS.includes(name)) return;
    loaded.add(name);
    if (!name.endsWith(".ts") || name.startsWith("..")) return;
    for (const { kind, path } of scanner.scanImports(readFileSync(join(SOURCES, name), "utf8")))
      if (kind === "import-statement") add(path.startsWith(".") ? join(dirname(name), path) : path);
  };
  roots.forEach(add);
  return [...loaded];
}

const STARTED = ["main.ts", "cli/start.ts"];
const CALLED = [...STARTED, "cli/cli.ts"];

/** Each takes as long to load as all of `vm --version`; citty is loaded with a command's definition. */
const SLOW = /^(node:(?!fs$|path$|os$)|consola|zx|process\/zx)/;
/** What starts programs or connects to qemu. */
const FOR_RUNNING =
  /^(process\/exec|lib\/packages|qmp\/(client|commands)|qemu\/(companion|argv)|vm\/(tpm|machine))/;

describe.each([
  ["--version", ["main.ts"], 2, /^(?!main|process\/c-library)/],
  ["a Tab", [...STARTED, "cli/complete/answer.ts", "cli/complete/snapshots.ts"], 68, FOR_RUNNING],
  ["-h", [...CALLED, "cli/usage.ts"], 86, FOR_RUNNING],
  ["status", [...CALLED, "commands/status.ts", "vm/list.ts"], 123, FOR_RUNNING],
  ["list", [...CALLED, "commands/list.ts", "vm/list.ts"], 123, FOR_RUNNING],
  ["run", [...CALLED, "commands/run.ts", "lifecycle/run.ts"], 201, /^(snapshot|job|guest|host)\//],
  ["backup", [...CALLED, "commands/backup.ts", "snapshot/make/make.ts"], 168, /^(lifecycle|job|guest)\//],
  ["job", [...CALLED, "commands/job.ts", "job/job.ts"], 195, /^(lifecycle|snapshot|guest|host)\//],
] as const)("vm %s", (_, roots, most, needless) => {
  const loaded = loadedWith(roots);
  test(`loads at most ${most} modules`, () => expect(loaded.length).toBeLessThanOrEqual(most));
  test("loads nothing that it does without", () =>
    expect(loaded.filter((name) => SLOW.test(name) || needless.test(name))).toEqual([]));
});
