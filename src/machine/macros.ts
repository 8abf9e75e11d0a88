/** Directories that macros in images and shares stand for; undefined where there is none. */
export interface MacroValues {
  MEDIA: string | undefined;
  MIRROR: string | undefined;
  HOSTDIR: string;
  INDIR: string;
  DATADIR: string;
}

/** What stands at the beginning of a path, and what it means. */
export const MACROS: readonly (readonly [macro: string, help: string])[] = [
  ["@MEDIA@", "external media, as the script check-media sets it"],
  ["@MIRROR@", "MEDIA + MEDIA_MIRROR"],
  ["@HOSTDIR@", "the VM's own directory"],
  ["@INDIR@", "a job's input (WORKDIR/.in)"],
  ["@DATADIR@", "a job's output (WORKDIR/.out)"],
];

const MACRO = /^@(MEDIA|MIRROR|HOSTDIR|INDIR|DATADIR)@/;

/** The macro a path begins with, if any. */
export const macroOf = (path: string): keyof MacroValues | undefined =>
  MACRO.exec(path)?.[1] as keyof MacroValues | undefined;

/**
 * Replaces the macro at the beginning of a path; the path may go on after it.
 * @returns undefined when the macro has no value
 */
export function expandMacro(path: string, values: MacroValues): string | undefined {
  const name = macroOf(path);
  if (!name) return path;
  const value = values[name];
  return value === undefined ? undefined : value + path.slice(name.length + 2);
}
