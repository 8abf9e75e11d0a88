import { basename } from "node:path";
import { badOption } from "../../config/complaint.ts";
import { commandLine, commandLineFor } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import type { Options } from "../../vm/context.ts";
import { validateSnapshotReference } from "../../store/snapshots.ts";

/** Arguments of `clone`. */
export interface CloneRequest {
  /** Absent: the working disks; of a linked clone of a template: the newest snapshot. */
  snapshot: string | undefined;
  /** Directories of the clones, as typed. */
  directories: string[];
  /** Make overlays on the snapshot's images. */
  linked: boolean;
  /** Leave host name, machine-id and SSH host keys of the guest as they are. */
  keepGuest: boolean;
  /** Copy the state of the TPM. */
  keepTpm: boolean;
  /** The clones are run afterwards: they have the RAM of a snapshot with RAM. */
  runs: boolean;
}

const MOST = 256;

/** Options that apply to the command itself, or to the job that renews the guest's identity. */
const ALLOWED: ReadonlySet<string> = new Set(["INPLACE", "RESCUE", "TIMEOUT"]);

/** @throws 64 */
export function parseClone(
  args: Record<string, unknown>,
  { settings, additions, spelled }: Options,
): CloneRequest {
  const words = [(args.target as string[] | undefined) ?? []].flat();
  const directory = words.at(-1)!;
  const snapshot = words.at(-2);
  if (words.length > 2)
    throw new VmError("usage", "clone takes at most a snapshot and a directory", {
      hint: `several clones: ${commandLine("clone", "--count=2", directory)}`,
    });
  if (snapshot !== undefined) validateSnapshotReference(snapshot);
  const other = [...Object.keys(settings), ...Object.keys(additions)].find(
    (name) =>
      !ALLOWED.has(name) &&
      (name in settings || (additions[name as keyof typeof additions] ?? []).length > 0),
  );
  if (other !== undefined)
    throw new VmError(
      "usage",
      `clone takes over the settings of the VM: ${spelled?.[other as "CPU"] ?? other} has no effect`,
      {
        hint: `change the clone's afterwards: ${commandLineFor(directory, "set", `${other}=VALUE`)}`,
      },
    );
  return {
    snapshot,
    directories: nameClones(directory, args.count as string | undefined),
    linked: args.linked === true,
    keepGuest: args["keep-guest"] === true,
    keepTpm: args["keep-tpm"] === true,
    runs: args.run === true,
  };
}

/** `web` with a count of 2: `web1`, `web2`; `web1`: `web1-1`, `web1-2`. @throws 64 for an invalid count */
export function nameClones(directory: string, count: string | undefined): string[] {
  if (count === undefined) return [directory];
  if (!/^[1-9]\d{0,2}$/.test(count) || Number(count) > MOST)
    throw badOption("--count", count, `a whole number from 1 to ${MOST}`);
  const stem = directory.replace(/\/+$/, "");
  const between = /\d$/.test(basename(stem)) ? "-" : "";
  return Array.from({ length: Number(count) }, (_, index) => `${stem}${between}${index + 1}`);
}
