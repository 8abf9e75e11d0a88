/** Values of macros in images and shares; undefined if there is none. */
export interface MacroValues {
  MEDIA: string | undefined;
  MIRROR: string | undefined;
  HOSTDIR: string;
  INDIR: string;
  DATADIR: string;
}

/** Macros at the start of a path, with their help. */
export const MACROS: readonly (readonly [macro: string, help: string])[] = [
  ["@MEDIA@", "external media, as set by the script check-media"],
  ["@MIRROR@", "MEDIA + MEDIA_MIRROR"],
  ["@HOSTDIR@", "the VM's own directory"],
  ["@INDIR@", "a job's input (WORKDIR/.in)"],
  ["@DATADIR@", "a job's output (WORKDIR/.out)"],
];

const MACRO = /^@(MEDIA|MIRROR|HOSTDIR|INDIR|DATADIR)@/;

/** The macro at the start of a path, if any. */
export const macroOf = (path: string): keyof MacroValues | undefined =>
  MACRO.exec(path)?.[1] as keyof MacroValues | undefined;

/**
 * Expands the macro at the start of a path.
 * @returns undefined if the macro has no value
 */
export function expandMacro(path: string, values: MacroValues): string | undefined {
  const name = macroOf(path);
  if (!name) return path;
  const value = values[name];
  return value === undefined ? undefined : value + path.slice(name.length + 2);
}
