import { closeSync, fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { fileKindOf, lstatOf, openForReading } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { ownedByUs } from "../lib/trust.ts";
import { listDirectory } from "../store/files.ts";
import { TPM_STATE, WORK, workingPath } from "../store/layout.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import type { Mark } from "../store/mark-types.ts";
import { findOversize, findTpmDamage, SMALL_HEAD_BYTES } from "../store/small-files.ts";
import { listSnapshots } from "../store/snapshots.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Vm } from "./find.ts";
import { findQemus } from "./in-use.ts";
import { findSwtpm } from "./tpm.ts";

/**
 * Checks the state of the TPM, and the other files that swtpm opens in its directory: it would wait for a named pipe.
 * @param uses the VM has a TPM: without one, a directory without a state may be another program's
 * @returns whether there is a state
 * @throws 74 unless they are of this user, of the right kinds and sizes, and the state has swtpm's header
 */
export function requireTpmState({ dir }: Workdir, uses: boolean): boolean {
  const directory = join(dir, WORK.tpm);
  const state = workingPath(dir, TPM_STATE);
  const stats = uses || lstatOf(state) ? lstatOf(directory) : undefined;
  if (!stats) return false;
  const refuse = (path: string, reason: string | undefined): void => {
    if (reason !== undefined) throw unusable(directory, path, reason);
  };
  if (!stats.isDirectory()) refuse(directory, `it is not a directory but ${fileKindOf(stats)}`);
  refuse(directory, ownedByUs(stats) ? undefined : "it belongs to another user");
  for (const name of listDirectory(directory))
    refuse(join(directory, name), findFileProblem(directory, name));
  if (!lstatOf(state)) return false;
  refuse(state, readDamage(state));
  return true;
}

function findFileProblem(directory: string, name: string): string | undefined {
  const path = join(directory, name);
  const stats = lstatOf(path);
  // swtpm renames its files while it runs, and listens on a socket when `run-vm.sh` has started it.
  if (!stats || (name !== TPM_STATE && (stats.isSocket() || stats.isDirectory()))) return undefined;
  if (!stats.isFile()) return `it is not a regular file but ${fileKindOf(stats)}`;
  if (!ownedByUs(stats)) return "it belongs to another user";
  // The limit of the state: all that swtpm has in its directory is small.
  return findOversize(TPM_STATE, stats.size);
}

function readDamage(path: string): string | undefined {
  const fd = openForReading(path);
  try {
    const head = Buffer.alloc(SMALL_HEAD_BYTES);
    return findTpmDamage(head.subarray(0, readSync(fd, head, 0, head.length, 0)), fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}

const unusable = (directory: string, path: string, reason: string): VmError =>
  new VmError("io", `cannot use the state of the TPM ${path}: ${reason}`, {
    hint: `restore an intact one: ${commandLine("restore")}\nor have the next run make a new TPM, without the secrets of this one: rm -r ${shellQuote(directory)}`,
  });

/** Have these working files had a state of a TPM? Earlier versions recorded it of the last run only. */
const hadState = ({ tpm, run }: Mark): boolean => tpm === true || usesTpm(run?.settings?.TPM);

const usesTpm = (setting: unknown): boolean => typeof setting === "string" && setting !== "";

/** Checks the state for `run`, and warns if it is missing. @throws as `requireTpmState` */
export function checkTpmForRun(vm: Vm, work: Workdir): void {
  if (vm.settings.TPM !== "" && !requireTpmState(work, true) && hadState(work.mark))
    log.warn(
      `the state of the TPM is missing: ${join(work.dir, WORK.tpm)}; this run makes a new TPM, and secrets that the guest sealed in the former one are lost; ${describeStoredState(vm)}`,
    );
}

/** The same for `backup`, which warns of an swtpm that has exited, too. @throws as `requireTpmState` */
export function checkTpmForBackup(vm: Vm, work: Workdir, live: boolean): void {
  const uses = vm.settings.TPM !== "" || (live && usesTpm(work.mark.run?.settings?.TPM));
  if (!requireTpmState(work, uses) && uses && hadState(work.mark))
    log.warn(
      `the state of the TPM is missing: ${join(work.dir, WORK.tpm)}; this snapshot does not include it, and secrets that the guest sealed are lost; ${describeStoredState(vm)}`,
    );
  if (live && hasSwtpmExited(work))
    log.warn(
      `${SWTPM_EXITED}; this snapshot includes the last state that swtpm has written; restart the VM: ${commandLine("restart")}`,
    );
}

/** The newest snapshot with a state. */
function describeStoredState({ hostdir }: Vm): string {
  const copy = listSnapshots(hostdir).findLast(({ manifest }) =>
    manifest?.files.some(({ name }) => name === TPM_STATE),
  );
  return copy
    ? `to restore it, with the disks, from ${copy.name}: ${commandLine("restore", copy.name)}`
    : "no snapshot has a copy of it";
}

const SWTPM_EXITED = "swtpm has exited, and the guest's TPM does not answer";

/** Has the swtpm of a running VM exited before its qemu? Known only of a recorded run, and of processes that this user can see. */
export function hasSwtpmExited(work: Workdir): boolean {
  const { mark, dir } = work;
  if (!isExitUnrecorded(mark) || !usesTpm(mark.run?.settings?.TPM)) return false;
  return findQemus(work).length > 0 && findSwtpm(dir).length === 0;
}
