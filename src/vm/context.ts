import type { AddedList, RawSettings, SettingName } from "../config/schema.ts";

/** Progress display of a long copy. */
export interface Meter {
  /** Bytes done so far, and in total if that has become known. */
  update(doneBytes: number, totalBytes?: number): void;
  /** Removes the display, also after a failure. */
  finish(): void;
}

/** Validated settings from the command line. */
export interface Options {
  /** Replace those of files. */
  settings: RawSettings;
  /** Appended to the lists of files. */
  additions: Partial<Record<AddedList, string[]>>;
  hostdir: string | undefined;
  /** The line is about the VMs that have one of these labels. */
  labels?: readonly string[];
  /** `--image=` was given: `restart` drops the images of the previous run's options. */
  imagesCleared?: true;
  /** The options that set or extended these, as typed. */
  spelled?: Partial<Record<SettingName, string>>;
}

/** Immutable facts about the process, collected once by `cli`. */
export interface ProcessFacts {
  readonly prog: string;
  readonly version: string;
  readonly cwd: string;
  readonly home: string;
  readonly env: Record<string, string | undefined>;
  /** `uname -m`. */
  readonly hostArch: string;
  /** `$TMPDIR`, else `/tmp`. */
  readonly tmpdir: string;
  /** Cache, also of qemu's capabilities; absent without a home directory. */
  readonly cacheDirectory: string | undefined;
  /** Directory of VMs and rescue profiles, if it cannot be `~/PROG`. */
  readonly profiles?: string | undefined;
  readonly libexec: string;
  /** Installed data files were found; none are unpacked. */
  readonly libexecInstalled?: boolean;
  /** A command may change them for later ones of its batch (commands/define.ts): `create` stores the lists in guest.env. */
  readonly options: Options;
  /** Names of all commands of the line. */
  readonly batch?: readonly string[];
  /** HOSTDIR, resolved once, as a restore may remove the current directory (WORKDIR). Absent: cannot be resolved. */
  readonly hostdir?: string;
}

/** What commands work with. */
export interface Context extends ProcessFacts {
  /** Shows the progress of a copy of `totalBytes`. */
  meter(label: string, totalBytes: number): Meter;
  /** Asks for a secret on the terminal, until `over` aborts. Undefined: no answer, or no terminal. */
  readonly ask: ((prompt: string, over: AbortSignal) => Promise<string | undefined>) | undefined;
  /**
   * Validates a command line of this program, without running it.
   * @throws 64 for an invalid one
   */
  checkLine(words: readonly string[]): Promise<void>;
  /** Source of the manual page, generated from tables of `cli`. */
  manual(): Promise<string>;
  /**
   * Prints a result on stdout: text without control characters (lib/text.ts, `printable`), bytes unchanged.
   * @throws VmError 74 if stdout cannot be written
   */
  print(result: string | Uint8Array): void;
}
