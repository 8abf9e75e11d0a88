import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { closedPipe, hasErrno, usageError, VmError } from "../../lib/errors.ts";
import { saysClosedPipe } from "../../lib/program-messages.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { STDOUT } from "../../lib/standard-streams.ts";
import { foreignReason } from "../../lib/trust.ts";
import { flock, LOCK_EX, LOCK_NB } from "../../process/libc.ts";
import { ProcessError } from "../../process/exec.ts";
import { writeOutput } from "../../process/stdout.ts";
import { isTerminal } from "../../process/terminal.ts";
import { fileError, removeQuietly, syncDescriptor, syncDirectory } from "../../store/files.ts";

/** Where an export goes. */
export interface ExportOutput {
  /** For a program that writes to it. */
  readonly fd: number;
  /** The bytes of an earlier attempt, which are left in place; of a pipe there are none. */
  readonly earlier: number;
  read(at: number, length: number): Buffer;
  /** Removes what follows. */
  truncate(bytes: number): void;
  write(bytes: Uint8Array): Promise<void>;
  /** Names the reason if a program could not write, as the reader is gone. */
  explain<T>(work: Promise<T>): Promise<T>;
  /** Makes durable what was written. */
  sync(): Promise<void>;
  /** Makes the file visible under its name. */
  commit(): Promise<void>;
  /** Removes what was written: nothing can continue from it. */
  discard(): void;
  close(): void;
}

/** A file that is being written, beside the one that it becomes. */
const partialOf = (path: string): string => `${path}.vm-partial`;

function explainPipe(error: unknown): never {
  throw error instanceof ProcessError && saysClosedPipe(error.result) ? closedPipe("cannot export") : error;
}

/** @throws 64 for a terminal, 73 if there is something else under the name */
export function openExportOutput(path: string | undefined): ExportOutput {
  return path === undefined ? openStdout() : openFile(path);
}

function openStdout(): ExportOutput {
  if (isTerminal(STDOUT))
    throw usageError(
      "export: stdout is a terminal",
      `write to a file: ${commandLine("export", "-o", "FILE")}; or to a pipe: ${commandLine("export")} | ssh HOST vm import -`,
    );
  return {
    fd: STDOUT,
    earlier: 0,
    read: () => Buffer.alloc(0),
    truncate: () => {},
    write: async (bytes) => {
      if (!(await writeOutput(bytes))) throw closedPipe("cannot export");
    },
    explain: (work) => work.catch(explainPipe),
    sync: async () => {},
    commit: async () => {},
    discard: () => {},
    close: () => {},
  };
}

function openFile(path: string): ExportOutput {
  const beside = partialOf(path);
  const target = lstatOf(path);
  if (target)
    throw new VmError("cannotCreate", `cannot export to ${path}: it exists already`, {
      hint: "choose another file, or remove it first",
    });
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;
  let fd: number;
  try {
    fd = openSync(beside, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0o600);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR"))
      throw new VmError("noInput", `cannot export: no such directory: ${dirname(path)}`);
    throw fileError(`cannot export to ${path}`, error);
  }
  const stats = fstatSync(fd);
  if (!stats.isFile() || foreignReason(stats) !== undefined || stats.nlink !== 1) {
    closeSync(fd);
    throw new VmError("cannotCreate", `cannot export to ${path}: ${beside} is no file of this user's`, {
      hint: "remove it",
    });
  }
  if (!flock(fd, LOCK_EX | LOCK_NB)) {
    closeSync(fd);
    throw new VmError("busy", `cannot export to ${path}: another process exports to it`, {
      hint: "run the command again when that has finished",
    });
  }
  return {
    fd,
    earlier: stats.size,
    read: (at, length) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, at));
    },
    truncate: (bytes) => ftruncateSync(fd, bytes),
    write: async (bytes) => {
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
    },
    explain: (work) => work,
    sync: () => syncDescriptor(fd),
    commit: async () => {
      await syncDescriptor(fd);
      renameSync(beside, path);
      syncDirectory(dirname(path));
    },
    discard: () => removeQuietly(beside),
    close: () => closeSync(fd),
  };
}
