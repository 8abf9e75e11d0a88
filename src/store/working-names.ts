import { isPlainName } from "../lib/text.ts";
import { HOST, isDiskName, RUN_FILES, WORK } from "./layout.ts";

/** Files that qemu or the program writes for a run. */
export const RUN_NAMES: readonly string[] = [
  ...RUN_FILES,
  WORK.in,
  WORK.out,
  WORK.efivars,
  WORK.runScript,
  WORK.consoleLog,
  WORK.knownHosts,
  WORK.qemuLog,
  WORK.companionLog,
  WORK.spicePassword,
  WORK.eventsIn,
  WORK.eventsOut,
];

/** The same for a job. */
export const JOB_NAMES: readonly string[] = [
  ...RUN_FILES,
  WORK.in,
  WORK.out,
  WORK.efivars,
  WORK.rescueScript,
  WORK.rescueConsoleLog,
  WORK.qemuLog,
];

const NAMES: ReadonlySet<string> = new Set([
  ...RUN_NAMES,
  ...JOB_NAMES,
  WORK.seed,
  WORK.tpm,
  WORK.suspended,
  WORK.resumed,
  WORK.firstTime,
]);

/** Names that `destroy` may remove from an in-place HOSTDIR, and that a restore replaces there. */
export const isWorkingFile = (name: string): boolean => isDiskName(name) || NAMES.has(name);

/** Names that new working files may have: those, and their settings. */
export const isStagedName = (name: string): boolean =>
  isWorkingFile(name) ||
  name === HOST.guestEnv ||
  name === WORK.mark ||
  (isPlainName(name) && name.endsWith(".defaults"));

const DIRECTORIES: ReadonlySet<string> = new Set([WORK.in, WORK.out, WORK.tpm, WORK.suspended, WORK.resumed]);

/** Names that are directories. */
export const isDirectoryName = (name: string): boolean => DIRECTORIES.has(name);

/** Working directories of one VM: `vm-`, eight digits of HOSTDIR, `-`, eight of their own. */
export const isWorkDirectoryName = (name: string): boolean => /^vm-[0-9a-f]{8}-[0-9a-f]{8}$/.test(name);
