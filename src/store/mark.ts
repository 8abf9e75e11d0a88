import { join } from "node:path";
import type { RawSettings } from "../config/schema.ts";
import type { DisplayAddress } from "../machine/types.ts";
import { VmError } from "../lib/errors.ts";
import type { ImageFormat } from "../machine/types.ts";
import { readSmall, replaceFile, writeNew } from "./files.ts";
import { WORK } from "./layout.ts";

/**
 * How the guest's last run ended: by itself (`powered-off`, `reset`), ended by us (`stopped`), by somebody else or
 * with the host (`killed`), by a panic or a failure of qemu (`crashed`); `unknown` while it runs.
 */
export type RunEnd = "powered-off" | "reset" | "stopped" | "killed" | "crashed" | "unknown";

/**
 * What a copy of the disks is worth: the guest was off and had powered itself off, or had never run (`offline`); it
 * ran, and its agent had its file systems at rest (`agent`); or they are as after a power cut.
 */
export const CONSISTENCIES = ["offline", "agent", "crash-consistent"] as const;
export type Consistency = (typeof CONSISTENCIES)[number];

/** What earlier versions of this program wrote. */
const EARLIER: Readonly<Record<string, Consistency>> = {
  clean: "offline",
  unused: "offline",
  crash: "crash-consistent",
};

export const parseConsistency = (word: unknown): Consistency | undefined =>
  CONSISTENCIES.find((one) => one === word) ?? EARLIER[String(word)];

/** That of the disks of a VM that is off. */
export function consistencyOf({ lastRun, restored }: Mark): Consistency {
  if (lastRun === undefined)
    return restored === undefined ? "offline" : (parseConsistency(restored) ?? "crash-consistent");
  return lastRun === "powered-off" || lastRun === "reset" ? "offline" : "crash-consistent";
}

/** How the VM was started last: what cannot be asked of its qemu. */
export interface RunRecord {
  /** ISO time stamp. */
  started: string;
  /** Nobody waits for its end. */
  detached: boolean;
  pid: number;
  /** `hostfwd=` and `guestfwd=` rules of the first card. */
  forwards: string[];
  /** SPICE or VNC; absent without either. */
  display?: ({ protocol: string } & DisplayAddress) | undefined;
  /** What was typed for this run; a restart says it again. */
  typed: {
    settings: RawSettings;
    additions: Partial<Record<"FORWARDS" | "IMAGES" | "SHARES", string[]>>;
    ssh: boolean;
  };
  /** ISO time stamp, once its end has been written down. */
  ended?: string | undefined;
}

/** An image that a disk lies over, as it was when the disk was made. */
export interface BaseRecord {
  /** Absolute, without links. */
  path: string;
  format: ImageFormat;
  /** Absent for a block device, of which neither tells anything. */
  bytes?: number;
  /** ISO time stamp. */
  modified?: string;
}

/** A snapshot, so that another one under its name is noticed. */
export interface SnapshotRecord {
  name: string;
  /** Of its manifest; `contentSum` then. */
  id: string;
  sum: string;
}

/** What `.vm.json` in WORKDIR says. Its presence is the program's mark. */
export interface Mark {
  /** Format of this file. */
  vm: 1;
  /** ISO time stamp. */
  created: string;
  /** The last run's end; absent before the first run. */
  lastRun?: RunEnd | undefined;
  /** The last run. */
  run?: RunRecord | undefined;
  /** For restored files that have not run since: how consistent the snapshot was. */
  restored?: Consistency;
  /** The image that the first disk lies over (`create --linked`). */
  base?: BaseRecord | undefined;
  /** The snapshot whose disks the working disks are overlays of (restored without --copy). */
  onSnapshot?: SnapshotRecord | undefined;
  /** Working files of these names were put in place together (in-place restore). */
  files?: string[];
  /** A directory of earlier working files that this one took the place of, until it is removed. */
  replaces?: string | undefined;
}

export const newMark = (): Mark => ({ vm: 1, created: new Date().toISOString() });

/** The mark of a directory; undefined when it carries none. */
export function readMark(workdir: string): Mark | undefined {
  let text: string | undefined;
  try {
    text = readSmall(join(workdir, WORK.mark));
  } catch {
    return undefined;
  }
  if (text === undefined) return undefined;
  try {
    const mark: unknown = JSON.parse(text);
    if (typeof mark === "object" && mark !== null && "vm" in mark) {
      if (mark.vm === 1) return mark as Mark;
      throw new VmError("config", `${workdir} was made by a newer version of this program`, {
        hint: "use that version",
      });
    }
  } catch (error) {
    if (error instanceof VmError) throw error;
  }
  return undefined;
}

export const writeMark = (workdir: string, mark: Mark): void =>
  writeNew(join(workdir, WORK.mark), `${JSON.stringify(mark, null, 2)}\n`);

/** Changes the mark in one step. */
export function updateMark(workdir: string, change: Partial<Mark>): void {
  const mark = { ...(readMark(workdir) ?? newMark()), ...change };
  replaceFile(join(workdir, WORK.mark), `${JSON.stringify(mark, null, 2)}\n`);
}
