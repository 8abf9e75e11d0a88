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
import { fileKindOf, readTail } from "../lib/read-file.ts";

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
  restored: "a snapshot was restored; snapshot: its name",
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
export function readHistory(place: HistoryPlace): VmEvent[] {
  const path = historyPath(place);
  return [olderPath(path), path].flatMap((file) => parseHistory(readHistoryFile(file)));
}

/** A link or a pipe is no history. */
function readHistoryFile(path: string): string {
  try {
    return readTail(path, 2 * MAX_BYTES) ?? "";
  } catch {
    return "";
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
