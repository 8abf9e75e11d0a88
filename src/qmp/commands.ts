/**
 * QMP commands that this program uses, with the members that it sends and reads (qemu's qapi/*.json). A test compares them
 * with qemu's own schema.
 */
import { KEYS } from "../machine/keys.ts";
import { QmpUnexpectedReply } from "./errors.ts";
import { findShapeMismatch, type Shape, type ValueOf } from "./shape.ts";

export interface CommandShape {
  readonly args?: Shape;
  /** Absent: the reply is not used. */
  readonly reply?: Shape;
  /** Time limit for the reply. */
  readonly limitMs: number;
  /** Not in all versions that this program works with. */
  readonly recent?: true;
}

/** Queries, which a loaded host, or a slow disk that qemu's main loop waits for, may delay. */
const QUERY_MS = 30_000;
/** Commands that wait for disks: qemu opens images, flushes them, or drains requests. */
const DISK_MS = 300_000;

const NODE_NAME = { "node-name": "string" } as const;
const BITMAP = { node: "string", name: "string" } as const;
const AIO = { "aio?": { oneOf: ["io_uring"] } } as const;
const FILE_NODE = { driver: { oneOf: ["file"] }, filename: "string", "read-only?": "boolean" } as const;
/** A file or a block device of the host, of a disk or a CD. */
const MEDIUM_NODE = {
  driver: { oneOf: ["file", "host_device"] },
  filename: "string",
  "node-name?": "string",
  "discard?": { oneOf: ["unmap"] },
  "read-only?": "boolean",
  ...AIO,
} as const;
/** A property of a QOM object, by its path (qapi/qom.json). */
const PROPERTY = { path: "string", property: "string" } as const;

const ACTION = {
  either: [
    {
      type: { oneOf: ["block-dirty-bitmap-add"] },
      data: { ...BITMAP, persistent: "boolean" },
    },
    { type: { oneOf: ["block-dirty-bitmap-remove"] }, data: BITMAP },
  ],
} as const;

/** Start of the names that qemu opens files by that it was handed (qemu(1), -add-fd). */
export const LENT = "/dev/fdset/";

export const QMP_COMMANDS = {
  qmp_capabilities: { limitMs: QUERY_MS },

  // qapi/run-state.json, qapi/misc.json, qapi/machine.json
  "query-status": {
    reply: {
      running: "boolean",
      status: { known: ["running", "paused", "io-error", "guest-panicked", "finish-migrate"] },
    },
    limitMs: QUERY_MS,
  },
  stop: { limitMs: DISK_MS },
  cont: { limitMs: DISK_MS },
  system_powerdown: { limitMs: QUERY_MS },
  quit: { limitMs: QUERY_MS },

  // qapi/char.json, qapi/ui.json
  "query-chardev": { reply: [{ filename: "string", "frontend-open": "boolean" }], limitMs: QUERY_MS },
  "send-key": {
    args: { keys: [{ type: { oneOf: ["qcode"] }, data: { oneOf: KEYS } }], "hold-time": "number" },
    limitMs: QUERY_MS,
  },
  screendump: { args: { filename: "string" }, limitMs: QUERY_MS },
  "query-spice": {
    reply: {
      enabled: "boolean",
      "host?": "string",
      "port?": "number",
      "tls-port?": "number",
      "auth?": "string",
    },
    limitMs: QUERY_MS,
  },
  "query-vnc": {
    reply: {
      enabled: "boolean",
      "host?": "string",
      "service?": "string",
      "family?": { known: ["unix"] },
      "auth?": "string",
    },
    limitMs: QUERY_MS,
  },

  // qapi/block-core.json, qapi/transaction.json
  "query-named-block-nodes": {
    args: { flat: "boolean" },
    reply: [
      {
        "node-name?": "string",
        drv: "string",
        file: "string",
        image: {
          "virtual-size": "number",
          "format-specific?": { "data?": { "corrupt?": "boolean" } },
        },
        "dirty-bitmaps?": [
          { "name?": "string", count: "number", recording: "boolean", "inconsistent?": "boolean" },
        ],
      },
    ],
    limitMs: QUERY_MS,
  },
  "blockdev-add": {
    args: {
      either: [
        {
          driver: { oneOf: ["qcow2"] },
          ...NODE_NAME,
          "read-only?": "boolean",
          file: FILE_NODE,
          // A node of the same form, or null: qemu does not open the backing file in the header.
          backing: "any",
        },
        {
          driver: { oneOf: ["copy-before-write"] },
          ...NODE_NAME,
          file: "string",
          target: "string",
          "on-cbw-error": { oneOf: ["break-snapshot"] },
          "cbw-timeout": "number",
        },
        { driver: { oneOf: ["snapshot-access"] }, ...NODE_NAME, file: "string", "read-only": "boolean" },
        {
          driver: { oneOf: ["raw", "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc"] },
          ...NODE_NAME,
          "discard?": { oneOf: ["unmap"] },
          "detect-zeroes?": { oneOf: ["unmap"] },
          "read-only?": "boolean",
          file: MEDIUM_NODE,
        },
        { driver: { oneOf: ["file"] }, ...NODE_NAME, filename: "string", "read-only": "boolean", ...AIO },
        { driver: { oneOf: ["null-co"] }, ...NODE_NAME, size: "number", "read-zeroes": "boolean" },
        {
          driver: { oneOf: ["quorum"] },
          ...NODE_NAME,
          "read-only": "boolean",
          "vote-threshold": "number",
          "read-pattern": { oneOf: ["fifo"] },
          children: "any",
        },
      ],
    },
    limitMs: DISK_MS,
  },
  // qapi/misc.json; sent with a descriptor (send-descriptor.ts).
  getfd: { args: { fdname: "string" }, limitMs: QUERY_MS },
  "add-fd": { args: { opaque: "string" }, reply: { "fdset-id": "number" }, limitMs: QUERY_MS },
  "remove-fd": { args: { "fdset-id": "number" }, limitMs: QUERY_MS },
  "query-fdsets": {
    reply: [{ "fdset-id": "number", fds: [{ "opaque?": "string" }] }],
    limitMs: QUERY_MS,
  },
  "blockdev-del": { args: NODE_NAME, limitMs: DISK_MS },
  // It flushes the node, and reports if that fails.
  "blockdev-reopen": {
    args: {
      options: [
        {
          driver: { oneOf: ["qcow2"] },
          ...NODE_NAME,
          "read-only": "boolean",
          discard: { oneOf: ["unmap"] },
          "detect-zeroes": { oneOf: ["unmap"] },
          file: "string",
          // The name of a node, or null.
          backing: "any",
        },
      ],
    },
    limitMs: DISK_MS,
  },
  block_resize: { args: { ...NODE_NAME, size: "number" }, limitMs: DISK_MS },
  "query-block": {
    reply: [
      {
        "qdev?": "string",
        removable: "boolean",
        "tray_open?": "boolean",
        "inserted?": { "node-name?": "string" },
      },
    ],
    limitMs: QUERY_MS,
  },
  block_set_io_throttle: {
    args: {
      id: "string",
      bps: "number",
      bps_rd: "number",
      bps_wr: "number",
      iops: "number",
      iops_rd: "number",
      iops_wr: "number",
    },
    limitMs: DISK_MS,
  },
  "query-blockstats": {
    reply: [
      {
        "qdev?": "string",
        stats: {
          rd_bytes: "number",
          wr_bytes: "number",
          rd_operations: "number",
          wr_operations: "number",
        },
      },
    ],
    limitMs: QUERY_MS,
  },
  "blockdev-open-tray": { args: { id: "string", force: "boolean" }, limitMs: DISK_MS },
  "blockdev-close-tray": { args: { id: "string" }, limitMs: DISK_MS },
  "blockdev-remove-medium": { args: { id: "string" }, limitMs: DISK_MS },
  "blockdev-insert-medium": { args: { id: "string", ...NODE_NAME }, limitMs: DISK_MS },
  transaction: { args: { actions: [ACTION] }, limitMs: DISK_MS },
  "block-dirty-bitmap-add": { args: { ...BITMAP, disabled: "boolean" }, limitMs: DISK_MS },
  "block-dirty-bitmap-remove": { args: BITMAP, limitMs: DISK_MS },
  "block-dirty-bitmap-merge": {
    args: { node: "string", target: "string", bitmaps: [BITMAP] },
    limitMs: DISK_MS,
  },
  // In every state of qemu whose disks were released (migration).
  "blockdev-set-active": { args: { active: "boolean" }, limitMs: DISK_MS, recent: true },
  "blockdev-backup": {
    args: {
      "job-id": "string",
      device: "string",
      target: "string",
      sync: { oneOf: ["top", "bitmap"] },
      "bitmap?": "string",
      "bitmap-mode?": { oneOf: ["never", "always"] },
      compress: "boolean",
      "auto-dismiss": "boolean",
      "x-perf?": { "max-workers": "number" },
      "speed?": "number",
    },
    limitMs: DISK_MS,
  },

  "block-stream": {
    args: { "job-id": "string", device: "string", "on-error": { oneOf: ["stop"] } },
    limitMs: DISK_MS,
  },

  // qapi/job.json
  "query-jobs": {
    reply: [
      {
        id: "string",
        status: { known: ["concluded", "paused"] },
        "current-progress": "number",
        "total-progress": "number",
        "error?": "string",
      },
    ],
    // Polled while disks are copied, which a temporarily slow disk must not abort.
    limitMs: DISK_MS,
  },
  "job-resume": { args: { id: "string" }, limitMs: DISK_MS },
  "job-dismiss": { args: { id: "string" }, limitMs: DISK_MS },
  "block-job-cancel": { args: { device: "string", force: "boolean" }, limitMs: DISK_MS },

  // qapi/qom.json, qapi/qdev.json. Properties depend on the device.
  "qom-get": { args: PROPERTY, reply: "any", limitMs: QUERY_MS },
  "qom-set": { args: { ...PROPERTY, value: "any" }, limitMs: DISK_MS },
  "qom-list-types": {
    args: { implements: "string", abstract: "boolean" },
    reply: [{ name: "string" }],
    limitMs: QUERY_MS,
  },
  "query-qmp-schema": { reply: [{ "members?": [{ "name?": "string" }] }], limitMs: QUERY_MS },
  "qom-list": { args: { path: "string" }, reply: [{ name: "string", type: "string" }], limitMs: QUERY_MS },
  device_del: { args: { id: "string" }, limitMs: QUERY_MS },
  device_add: { args: { driver: "string", "id?": "string", "bus?": "string" }, limitMs: DISK_MS },
  "query-command-line-options": {
    args: { option: "string" },
    reply: [{ option: "string", parameters: [{ name: "string" }] }],
    limitMs: QUERY_MS,
  },

  // qapi/net.json, qapi/misc.json
  netdev_add: {
    args: {
      either: [
        { type: { oneOf: ["user"] }, id: "string", "hostfwd?": [{ str: "string" }] },
        {
          type: { oneOf: ["tap"] },
          id: "string",
          "fd?": "string",
          "ifname?": "string",
          "script?": "string",
          "downscript?": "string",
        },
        { type: { oneOf: ["socket"] }, id: "string", fd: "string" },
      ],
    },
    limitMs: QUERY_MS,
  },
  "chardev-add": {
    args: { id: "string", backend: { type: { oneOf: ["pipe"] }, data: { device: "string" } } },
    limitMs: QUERY_MS,
  },
  "chardev-remove": { args: { id: "string" }, limitMs: QUERY_MS },
  netdev_del: { args: { id: "string" }, limitMs: QUERY_MS },
  set_link: { args: { name: "string", up: "boolean" }, limitMs: QUERY_MS },
  "human-monitor-command": { args: { "command-line": "string" }, reply: "string", limitMs: QUERY_MS },

  // qapi/migration.json
  "migrate-set-capabilities": {
    args: { capabilities: [{ capability: { oneOf: ["events", "x-ignore-shared"] }, state: "boolean" }] },
    limitMs: QUERY_MS,
  },
  "migrate-set-parameters": {
    args: { "max-bandwidth?": "number", "announce-rounds?": "number" },
    limitMs: QUERY_MS,
  },
  migrate: { args: { uri: "string" }, limitMs: QUERY_MS },
  migrate_cancel: { limitMs: QUERY_MS },
  "query-migrate": {
    reply: {
      "status?": { known: ["setup", "active", "cancelling", "device"] },
      "error-desc?": "string",
      "blocked-reasons?": ["string"],
    },
    limitMs: QUERY_MS,
  },
  "migrate-incoming": { args: { uri: "string" }, limitMs: QUERY_MS },
} as const satisfies Record<string, CommandShape>;

type CommandTable = typeof QMP_COMMANDS;

export type CommandName = keyof CommandTable;

export type ArgsOf<Name extends CommandName> = CommandTable[Name] extends { readonly args: infer Args }
  ? ValueOf<Args>
  : undefined;

export type ReplyOf<Name extends CommandName> = CommandTable[Name] extends { readonly reply: infer Reply }
  ? ValueOf<Reply>
  : unknown;

/** A command with its arguments, if any. */
export type QmpCommand = {
  [Name in CommandName]: ArgsOf<Name> extends undefined ? readonly [Name] : readonly [Name, ArgsOf<Name>];
}[CommandName];

/** Remaining parameters of a function whose first one is a command's name. */
export type Rest<Name extends CommandName> = ArgsOf<Name> extends undefined ? [] : [args: ArgsOf<Name>];

/** Serialises a command as one line. */
export const formatCommand = (execute: string, args?: unknown, id?: number): string =>
  `${JSON.stringify({ execute, arguments: args, id })}\n`;

/** @throws QmpUnexpectedReply if members of the reply are missing or of another type */
export function checkReply(command: string, { reply }: CommandShape, value: unknown): void {
  const mismatch = reply && findShapeMismatch(value, reply);
  if (mismatch !== undefined) throw new QmpUnexpectedReply(command, mismatch);
}

/** One action of a transaction: qemu executes all of them or none. */
export type TransactionAction = ValueOf<typeof ACTION>;
