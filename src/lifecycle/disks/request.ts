import { parseRate } from "../../config/machine-values.ts";
import { parseAction } from "../../lib/action.ts";
import { commandLine } from "../../lib/command-line.ts";
import { usageError, type VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import {
  DISK_SIZES,
  DISK_SYNTAX,
  IMAGE_SYNTAX,
  looksLikeSize,
  parseDisk,
  parseDiskSize,
  parseImage,
} from "../../machine/parse.ts";
import type { DiskBus, ImageRequest } from "../../machine/types.ts";
import { DISK_ACTIONS, type DiskAction } from "../choices.ts";

/** A new disk, or an existing image. */
export type AddRequest = { bus: DiskBus | undefined; sizeBytes: number } | { image: ImageRequest };

/** A new size, or the difference to the old one. */
export interface SizeRequest {
  bytes: number;
  more: boolean;
  /** As typed. */
  text: string;
}

/** New limits; absent: as before, 0: none. */
export interface LimitRequest {
  iops?: number;
  bytesPerSecond?: number;
}

export type DiskCommand =
  | { action: "list"; json: boolean }
  | { action: "add"; disk: AddRequest }
  | { action: "remove"; name: string; delete: boolean }
  | { action: "set"; name: string; limits: LimitRequest }
  | { action: "resize"; name: string; size: SizeRequest; filesystem: boolean };

/** Arguments of `disk`. */
export interface DiskArgs {
  action?: string | undefined;
  name?: string | undefined;
  size?: string | undefined;
  json?: boolean | undefined;
  delete?: boolean | undefined;
  fs?: boolean | undefined;
  iops?: string | undefined;
  bps?: string | undefined;
}

const diskUsageError = (message: string, hint = commandLine("disk", "-h")): VmError =>
  usageError(message, hint);

/** Words of each action. */
const WORDS: Record<DiskAction, { name?: string; size?: string }> = {
  list: {},
  add: { name: "SIZE, TYPE=SIZE or TYPE=[FMT=]PATH" },
  remove: { name: "NAME" },
  resize: { name: "NAME", size: "SIZE" },
  set: { name: "NAME" },
};

/** @throws 64 for an invalid combination */
export function parseDiskCommand(args: DiskArgs): DiskCommand {
  const action = parseAction("disk", args.action ?? "list", DISK_ACTIONS);
  const { name = "", size = "" } = args;
  for (const word of ["name", "size"] as const) {
    const wanted = WORDS[action][word];
    if (wanted === undefined && args[word] !== undefined)
      throw diskUsageError(`disk ${action}: one word too many: ${args[word]}`);
    if (wanted !== undefined && args[word] === undefined)
      throw diskUsageError(`disk ${action}: ${wanted} is missing`);
  }
  if (args.json && action !== "list") throw diskUsageError(`disk ${action} takes no --json`);
  if (args.delete && action !== "remove") throw diskUsageError(`disk ${action} takes no --delete`);
  if (args.fs && action !== "resize") throw diskUsageError(`disk ${action} takes no --fs`);
  for (const option of ["iops", "bps"] as const)
    if (args[option] !== undefined && action !== "set")
      throw diskUsageError(`disk ${action} takes no --${option}`);
  switch (action) {
    case "set":
      return { action, name, limits: parseLimits(args) };
    case "list":
      return { action, json: args.json === true };
    case "add":
      return { action, disk: parseAdded(name) };
    case "remove":
      return { action, name, delete: args.delete === true };
    case "resize":
      return { action, name, size: parseNewSize(size), filesystem: args.fs === true };
  }
}

/** Below it a disk is of no use: a unit is missing. */
const SLOWEST_BYTES = 4096;

function parseLimits({ iops, bps }: DiskArgs): LimitRequest {
  if (iops === undefined && bps === undefined)
    throw diskUsageError(
      "disk set: --iops or --bps is missing",
      commandLine("disk", "set", "0", "--iops=500"),
    );
  const parse = (name: "iops" | "bps", text: string): number => {
    const value = /^0?$/.test(text) ? 0 : parseRate(name, text);
    if (value !== undefined) return value;
    throw diskUsageError(
      `--${name}: '${text}' is not allowed`,
      `allowed: ${name === "iops" ? "a whole number" : "a size like 20M"}, or 0 for no limit`,
    );
  };
  const bytesPerSecond = bps === undefined ? undefined : parse("bps", bps);
  if (bytesPerSecond !== undefined && bytesPerSecond > 0 && bytesPerSecond < SLOWEST_BYTES)
    log.warn(`--bps=${bps} is ${bytesPerSecond} bytes per second; for mebibytes: --bps=${bps}M`);
  return {
    ...(iops !== undefined && { iops: parse("iops", iops) }),
    ...(bytesPerSecond !== undefined && { bytesPerSecond }),
  };
}

function parseAdded(text: string): AddRequest {
  const sizeBytes = parseDiskSize(text);
  if (sizeBytes !== undefined) return { bus: undefined, sizeBytes };
  const disk = parseDisk(text);
  if (disk) return disk;
  const image = parseImage(text);
  const path = image?.format === undefined ? (image?.path ?? text) : undefined;
  if (path !== undefined && looksLikeSize(path))
    throw diskUsageError(
      `disk add: a disk cannot have the size '${path}'`,
      `allowed: a whole number of bytes, or of K M G T: ${DISK_SIZES}\na file of this name: ${commandLine("disk", "add", `${image?.bus ?? "TYPE"}=./${path}`)}`,
    );
  if (image) return { image };
  throw diskUsageError(
    `disk add: '${text}' is not allowed`,
    `allowed: SIZE; ${DISK_SYNTAX}; ${IMAGE_SYNTAX}`,
  );
}

/** Sizes of qemu's disks are multiples of it. */
const SECTOR = 512;

function parseNewSize(text: string): SizeRequest {
  const more = text.startsWith("+");
  const bytes = parseDiskSize(more ? text.slice(1) : text);
  if (bytes === undefined || bytes % SECTOR !== 0)
    throw diskUsageError(
      `disk resize: '${text}' is not allowed`,
      `allowed: a size like 30G or 512M, or +10G to add that; ${DISK_SIZES}, a multiple of ${SECTOR} bytes`,
    );
  return { bytes, more, text };
}
