import { shellLine } from "./shell.ts";

/** The program's name, and the `-d DIR` that was typed: a hint must name the same VM. */
let start: readonly string[] = ["vm"];

/** The same for one of several VMs that a command works on at a time (lib/vm-scope.ts). */
let findScope: () => readonly string[] | undefined = () => undefined;
export const setScope = (find: typeof findScope): void => void (findScope = find);

/** Called once, when the command line is understood. */
export function setCommandLine(prog: string, hostdir?: string): void {
  start = hostdir === undefined ? [prog] : [prog, "-d", hostdir];
}

/** Until disposed of, hints are about the VM in another directory. */
export function aboutVm(hostdir: string): Disposable {
  const before = start;
  start = [before[0]!, "-d", hostdir];
  return { [Symbol.dispose]: () => void (start = before) };
}

/** A command of this program for a hint, to be pasted: `vm -d DIR restore S3`. */
export const commandLine = (...words: string[]): string => shellLine([...(findScope() ?? start), ...words]);

/** The same for the VM in another directory. */
export const commandLineFor = (directory: string, ...words: string[]): string =>
  shellLine([start[0]!, "-d", directory, ...words]);
/** A command that is about no VM, or about another one: `vm list`, without `-d DIR`. */
export const programLine = (...words: string[]): string => shellLine([programName(), ...words]);

/** The program's name: that of its settings files, and the first word of its commands. */
export const programName = (): string => start[0]!;
