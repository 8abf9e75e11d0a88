import { dirname, join } from "node:path";
import { exec } from "../../process/exec.ts";
import { readInterpreter, withFile } from "./elf.ts";
import { exists, forEachTogether } from "./host.ts";
import { LATE_LIBRARIES } from "./tools.ts";

/** Full paths of the libraries, from a loader's `--list` (ld.so(8); musl's says the same). */
export const parseLoaderList = (text: string): string[] =>
  [...text.matchAll(/^\s*(?:\S+ => )?(\/.*?) \(0x[0-9a-f]+\)$/gm)].map(([, path]) => path!);

/**
 * Paths of all shared libraries that programs load, with the loaders themselves.
 * Each loader finds what it would find at run time; none of the programs is run.
 */
export async function findLibraries(programs: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  await forEachTogether(programs, async (program) => {
    const interpreter = withFile(program, readInterpreter);
    if (!interpreter) return;
    found.add(interpreter);
    const { stdout } = await exec([interpreter, "--list", program], {
      what: `cannot tell which libraries ${program} needs`,
      whenOrphaned: "none",
      // It fails where the host lacks one of them: such a program does not run on the host either.
      anyStatus: true,
    });
    for (const path of parseLoaderList(stdout)) found.add(path);
  });
  const beside = [...found].filter((path) => /\/(libc\.so\.6|libcrypto\.so\.\d)$/.test(path)).map(dirname);
  for (const directory of new Set(beside))
    for (const name of LATE_LIBRARIES) if (exists(join(directory, name))) found.add(join(directory, name));
  return [...found];
}
