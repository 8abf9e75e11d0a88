import type { RawSettings, SettingName } from "../config/schema.ts";

/** Shows how far a long copy is. */
export interface Meter {
  /** Bytes done so far. */
  update(doneBytes: number): void;
  /** Ends the display, however the work went. */
  finish(): void;
}

/** The command line's part in the settings, checked. */
export interface Options {
  /** Replace what files say. */
  settings: RawSettings;
  /** Are added to the lists of files. */
  additions: Partial<Record<"FORWARDS" | "IMAGES" | "SHARES", string[]>>;
  hostdir: string | undefined;
  /** `--image=` was among the options: a restart leaves out what was typed for the run before. */
  imagesCleared?: true;
  /** The options that set or added to these. */
  spelled?: Partial<Record<SettingName, string>>;
}

/** What every command works in: facts of the process, gathered once by `cli`, and changed by nobody. */
export interface Context {
  readonly prog: string;
  readonly version: string;
  readonly cwd: string;
  readonly home: string;
  readonly env: Record<string, string | undefined>;
  /** `uname -m`. */
  readonly hostArch: string;
  /** `$TMPDIR`, else `/tmp`. */
  readonly tmpdir: string;
  /** Where answers of qemu are kept; absent without a home. */
  readonly cacheDirectory: string | undefined;
  /** The home of VMs and rescue profiles, where it cannot be `~/PROG`. */
  readonly profiles?: string | undefined;
  readonly libexec: string;
  /** Data files that were installed with the program are there; it unpacks none. */
  readonly libexecInstalled?: boolean;
  /** A command may change them for the next of its batch (commands/define.ts): `create` keeps the lists in guest.env. */
  readonly options: Options;
  /** HOSTDIR, found once: the directory we were started in may go (a restore from WORKDIR). Absent: it cannot be found. */
  readonly hostdir?: string;
  /** Begins a display for a copy of `totalBytes`. */
  meter(label: string, totalBytes: number): Meter;
  /** Asks for a secret on the terminal, until `over`. Undefined: no answer, or no terminal. */
  readonly ask: ((prompt: string, over: AbortSignal) => Promise<string | undefined>) | undefined;
  /**
   * Checks a command line of this program, all that can be told of its words; `cli` understands them.
   * @throws 64 for one that would be refused
   */
  checkLine(words: readonly string[]): Promise<void>;
  /** The manual page's source; `cli` has the tables that it is made from. */
  manual(): Promise<string>;
  /**
   * Prints a result on stdout. Text is made fit for a terminal (lib/text.ts, `printable`), bytes are printed as they are.
   * @throws VmError 74 when stdout cannot take it
   */
  print(result: string | Uint8Array): void;
}
