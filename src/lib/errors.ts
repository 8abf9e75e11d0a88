/**
 * Exit statuses of the program: those of sysexits.h, plus timeout(1)'s 124.
 * 128+N for a signal and a job's own status are computed where they arise.
 */
export const EXIT = {
  ok: 0,
  other: 1,
  usage: 64,
  noInput: 66,
  unavailable: 69,
  internal: 70,
  cannotCreate: 73,
  io: 74,
  busy: 75,
  config: 78,
  timeout: 124,
} as const;

export type ExitName = keyof typeof EXIT;

/** What other code may decide by, where the exit status is not enough. A message is for people alone. */
export type ErrorReason =
  /** The caller lacks the rights. */
  | "denied"
  /** A newer version of this program wrote it. */
  | "newer"
  /** Settings are wrong, which the message lists. */
  | "settings"
  /** It is there, but no file of the kind or size that can be read. */
  | "unreadable"
  /** This host cannot mount with FUSE. */
  | "no-fuse";

export interface VmErrorOptions {
  reason?: ErrorReason | undefined;
  /** The message without its subject or its list, for callers that name these. */
  brief?: string | undefined;
  /** What to do about it: one or more full lines, shown after the message. */
  hint?: string | undefined;
  cause?: unknown;
}

/**
 * An error meant for the user: the message says what failed and why, the hint what to do.
 * Only `main.ts` prints it and turns `exitCode` into the exit status.
 */
export class VmError extends Error {
  readonly code: ExitName;
  readonly exitCode: number;
  readonly hint: string | undefined;
  readonly reason: ErrorReason | undefined;
  readonly brief: string;

  constructor(code: ExitName, message: string, options: VmErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "VmError";
    this.code = code;
    this.exitCode = EXIT[code];
    this.hint = options.hint;
    this.reason = options.reason;
    this.brief = options.brief ?? message;
  }
}

/** The reader of a pipe has ended before all was written. @param what start of the message: `cannot export` */
export const closedPipe = (what: string): VmError =>
  new VmError("io", `${what}: the reader closed the pipe`, { hint: "check why the other program ended" });

/** Arguments that exclude each other, or an invalid value. */
export const usageError = (message: string, hint: string): VmError => new VmError("usage", message, { hint });

/** Terminated by a signal; the exit status is 128 + its number. */
export class SignalError extends VmError {
  override readonly exitCode: number;
  constructor(
    readonly signal: string,
    signalNumber: number,
    message = `interrupted by ${signal}`,
  ) {
    super("other", message);
    this.exitCode = 128 + signalNumber;
  }
}

/**
 * A program that the user ran through this one exited with this status. It has reported its own errors: nothing more is
 * reported.
 */
export class StatusError extends VmError {
  constructor(
    message: string,
    override readonly exitCode: number,
  ) {
    super("other", message);
  }
}

/** True for a Node-style error with this `code` (`ENOENT`, `EEXIST` …). */
export function hasErrno(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return (
    error instanceof Error && "code" in error && typeof error.code === "string" && codes.includes(error.code)
  );
}

/** The reason of a failed system call in words, without Node's call signature around it. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (hasErrno(error, "EISDIR")) return "it is a directory";
  const errno = /^([A-Z0-9]+): ([^,]+)/.exec(error.message);
  return errno ? errno[2]! : error.message;
}

/** The same; of a VmError its reason without the subject. */
export const briefOf = (error: unknown): string => (error instanceof VmError ? error.brief : reasonOf(error));

/** Filesystem errors for a full disk or quota. */
export const isNoSpace = (error: unknown): boolean => hasErrno(error, "ENOSPC", "EDQUOT", "EFBIG");

/** Hint for a full disk. Only the caller knows what was done before. */
export const NO_ROOM = "free some space and run the command again";

/** @param what cannot be done: `cannot copy the disks` */
export const noSpaceError = (what: string, { hint = NO_ROOM, cause }: VmErrorOptions = {}): VmError =>
  new VmError("cannotCreate", `${what}: no space left on device`, {
    hint,
    cause,
    brief: "no space left on device",
  });
