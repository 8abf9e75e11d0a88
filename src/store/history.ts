import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { reasonOf } from "../lib/errors.ts";
import { fileKindOf, openForReading } from "../lib/read-file.ts";

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;

/** What happens to a VM; in the order of the manual. */
export const VM_EVENTS = {
  started: "qemu was started; how: resumed, of a suspended VM",
  ready: "a program in the guest has opened its channel: the guest agent",
  rebooted: "the guest was reset; how: by itself or by a command",
  paused: "the guest was paused; how: by a command, or the error of a disk",
  resumed: "the guest runs again",
  failed: "a disk of the guest failed; how: the error",
  panicked: "the guest's kernel panicked",
  ended: "the run ended; how; end: one of the words of lastRun in status --json",
  snapshot: "a snapshot was made; snapshot: its name",
  "snapshot failed": "a backup failed; how, status: its exit status",
  "push failed": "the snapshot was made, but not pushed to the repository; snapshot: its name; how, status",
  restored: "a snapshot was restored; snapshot: its name; how: of files only, their paths",
  job: "a job ended; job: its name; status: its exit status",
} as const;
export type VmEventName = keyof typeof VM_EVENTS;

/** One event, as the history has it and `events --json` prints it. */
export interface VmEvent {
  /** ISO time stamp. */
  at: string;
  /** HOSTDIR. */
  vm: string;
  event: VmEventName;
  how?: string | undefined;
  /** Of `ended`. */
  end?: string | undefined;
  snapshot?: string | undefined;
  job?: string | undefined;
  status?: number | undefined;
}

/** Where the history is kept. */
export interface HistoryPlace {
  env: Record<string, string | undefined>;
  home: string;
}

/** Of the file; the one before it is kept, too. */
const MAX_BYTES = 1 << 20;

/** Of one text in an event. */
const MAX_TEXT = 1000;

/** The user's history of all VMs: in `$XDG_STATE_HOME`, else `~/.local/state`. */
export function historyPath({ env, home }: HistoryPlace): string {
  const states = env.XDG_STATE_HOME;
  return join(states && isAbsolute(states) ? states : join(home, ".local/state"), "vm", "events.jsonl");
}

const olderPath = (path: string): string => `${path}.1`;

/**
 * Appends events to the user's history. Best effort: a full disk or a read-only HOME must not fail the command.
 * Each event is written whole, so that commands at the same time do not disturb each other.
 */
export function appendHistory(place: HistoryPlace, events: readonly VmEvent[]): void {
  if (events.length === 0) return;
  const path = historyPath(place);
  try {
    const fd = openHistory(path);
    try {
      const { size } = fstatSync(fd);
      const last = Buffer.alloc(1);
      // A full disk has cut a line off.
      if (size > 0 && readSync(fd, last, 0, 1, size - 1) === 1 && last.toString() !== "\n")
        writeSync(fd, "\n");
      for (const event of events) writeSync(fd, `${JSON.stringify(event, boundText)}\n`);
      if (fstatSync(fd).size > MAX_BYTES) renameSync(path, olderPath(path));
    } finally {
      closeSync(fd);
    }
  } catch {
    // As above.
  }
}

/** Appends what has just happened to a VM. */
export const recordEvent = (place: HistoryPlace, vm: string, event: Omit<VmEvent, "at" | "vm">): void =>
  appendHistory(place, [{ at: new Date().toISOString(), vm, ...event }]);

/** Neither a link nor a pipe is opened. @throws a system error, Error for what is no file */
function openHistory(path: string): number {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fd = openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  const stats = fstatSync(fd);
  if (stats.isFile()) return fd;
  closeSync(fd);
  throw new Error(`it is ${fileKindOf(stats)}`);
}

/** Why events are not recorded; undefined if they are. */
export function findHistoryProblem(place: HistoryPlace): string | undefined {
  const path = historyPath(place);
  try {
    closeSync(openHistory(path));
    return undefined;
  } catch (error) {
    return `cannot write ${path}: ${reasonOf(error)}`;
  }
}

const boundText = (_key: string, value: unknown): unknown =>
  typeof value === "string" ? value.slice(0, MAX_TEXT) : value;

/** The recorded events, oldest first; lines that are none are ignored. */
export class HistoryReader {
  readonly #path: string;
  /** The file that was read last, and how far: to the end of a line. */
  #at: { inode: number; offset: number } | undefined;

  constructor(place: HistoryPlace) {
    this.#path = historyPath(place);
  }

  /** Those that were not read before. */
  read(): VmEvent[] {
    // In this order: one that is full becomes the one before it.
    const fds = [this.#path, olderPath(this.#path)].map(openPlain);
    const [current, older] = fds;
    try {
      const inode = current === undefined ? undefined : fstatSync(current).ino;
      const rest = older === undefined ? [] : this.#readRest(older, inode);
      return current === undefined ? rest : [...rest, ...this.#readNew(current)];
    } finally {
      for (const fd of fds) if (fd !== undefined) closeSync(fd);
    }
  }

  /** Of the file before: everything at first, later what was not read while it was the last one. */
  #readRest(fd: number, current: number | undefined): VmEvent[] {
    const { ino } = fstatSync(fd);
    const isUnread = this.#at === undefined || this.#at.inode === ino;
    return isUnread && ino !== current ? readLines(fd, this.#at?.offset).events : [];
  }

  #readNew(fd: number): VmEvent[] {
    const inode = fstatSync(fd).ino;
    const { events, offset } = readLines(fd, this.#at?.inode === inode ? this.#at.offset : undefined);
    this.#at = { inode, offset };
    return events;
  }
}

/** Reads whole lines, at most so much from the end. @returns also where the next line begins */
function readLines(fd: number, offset = 0): { events: VmEvent[]; offset: number } {
  const { size } = fstatSync(fd);
  // A smaller one is a new one.
  const from = Math.max(offset <= size ? offset : 0, size - 2 * MAX_BYTES);
  const bytes = Buffer.alloc(size - from);
  const length = readSync(fd, bytes, 0, bytes.length, from);
  const whole = bytes.subarray(0, length).lastIndexOf("\n") + 1;
  return { events: parseHistory(bytes.toString("utf8", 0, whole)), offset: from + whole };
}

/** A link or a pipe is no history. */
function openPlain(path: string): number | undefined {
  try {
    return openForReading(path);
  } catch {
    return undefined;
  }
}

/** Pure. */
export const parseHistory = (text: string): VmEvent[] =>
  text.split("\n").flatMap((line) => {
    const event = parseLine(line);
    return event ? [event] : [];
  });

const TEXTS = ["how", "end", "snapshot", "job"] as const;

function parseLine(line: string): VmEvent | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const read = JSON.parse(line) as Record<string, unknown>;
    const { at, vm, event, status } = read;
    if (typeof at !== "string" || Number.isNaN(Date.parse(at))) return undefined;
    if (typeof vm !== "string" || typeof event !== "string" || !Object.hasOwn(VM_EVENTS, event))
      return undefined;
    const texts = TEXTS.flatMap((name) => (typeof read[name] === "string" ? [[name, read[name]]] : []));
    return {
      at,
      vm,
      event: event as VmEventName,
      ...Object.fromEntries(texts),
      ...(typeof status === "number" && { status }),
    };
  } catch {
    return undefined;
  }
}
