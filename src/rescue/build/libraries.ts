import { dirname, join, resolve } from "node:path";
import { exec } from "../../process/exec.ts";
import { readInterpreter, readNeeds } from "./elf.ts";
import { withFile } from "../../lib/read-file.ts";
import { forEachTogether } from "./host.ts";
import { expandOrigin, type SystemRoot } from "./system-root.ts";
import { LATE_LIBRARIES } from "./tools.ts";

/** Full paths of the libraries, from a loader's `--list` (ld.so(8); musl prints the same). */
export const parseLoaderList = (text: string): string[] =>
  [...text.matchAll(/^\s*(?:\S+ => )?(\/.*?) \(0x[0-9a-f]+\)$/gm)].map(([, path]) => path!);

/** @param programs paths in the system. @returns paths of all shared libraries they load, with the loaders themselves */
export async function findLibraries(system: SystemRoot, programs: readonly string[]): Promise<string[]> {
  const found = system.isHost ? await askLoaders(programs) : followNeeds(system, programs);
  const beside = found.filter((path) => /\/(libc\.so\.6|libcrypto\.so\.\d)$/.test(path)).map(dirname);
  const late = [...new Set(beside)].flatMap((directory) =>
    LATE_LIBRARIES.map((name) => join(directory, name)).filter((path) => system.resolve(path) !== undefined),
  );
  return [...new Set([...found, ...late])];
}

/** Asks each loader, which finds what it would find at run time; the programs themselves are not run. */
async function askLoaders(programs: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  await forEachTogether(programs, async (program) => {
    const interpreter = withFile(program, readInterpreter);
    if (!interpreter) return;
    found.add(interpreter);
    const { stdout } = await exec([interpreter, "--list", program], {
      what: `cannot list the libraries of ${program}`,
      whenOrphaned: "none",
      // Fails if a library is missing: such a program does not run on the host either.
      anyStatus: true,
    });
    for (const path of parseLoaderList(stdout)) found.add(path);
  });
  return [...found];
}

/** Loaders of another architecture cannot run here: libraries are searched for as they would. */
function followNeeds(system: SystemRoot, programs: readonly string[]): string[] {
  const found = new Set<string>();
  const usual = system.libraryDirectories();
  const waiting = [...programs];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    const at = system.at(file);
    const { names, directories } = withFile(at, readNeeds);
    const places = [...directories.map((directory) => expandOrigin(directory, file!)), ...usual];
    const libraries = names.flatMap(
      (name) =>
        places.map((place) => resolve("/", place, name)).find((path) => system.resolve(path) !== undefined) ??
        [],
    );
    const interpreter = withFile(at, readInterpreter);
    // Paths in headers are relative to the root of the system.
    for (const path of [...libraries, ...(interpreter ? [resolve("/", interpreter)] : [])]) {
      const real = system.resolve(path);
      if (real === undefined || found.has(path)) continue;
      found.add(path);
      waiting.push(real);
    }
  }
  return [...found];
}
