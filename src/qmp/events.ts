/** The events of qemu that this program knows, with the members that it reads (qemu's qapi/*.json). A test compares them with qemu's own schema. */
import { findMisfit, isObject, type Members, type ValueOf } from "./shape.ts";

export const EVENTS = {
  SHUTDOWN: { guest: "boolean", reason: "string" },
  STOP: {},
  RESUME: {},
  GUEST_PANICKED: {},
  BLOCK_IO_ERROR: {
    "node-name": "string",
    operation: "string",
    action: { known: ["ignore", "report", "stop"] },
    nospace: "boolean",
    reason: "string",
  },
  JOB_STATUS_CHANGE: { id: "string" },
  MIGRATION: { status: { known: ["completed", "failed"] } },
  /** A program in the guest has opened or closed a virtio-serial port. */
  VSERPORT_CHANGE: { open: "boolean" },
} as const satisfies Record<string, Members>;

type Table = typeof EVENTS;

/** One event; a member is absent when qemu has not sent it, or something else in its place. */
export type QmpEvent = {
  [Name in keyof Table]: { event: Name; data: Partial<ValueOf<Table[Name]>> };
}[keyof Table];

/** @returns undefined for an event that this program does not know */
export function parseEvent(event: unknown, data: unknown): QmpEvent | undefined {
  if (typeof event !== "string" || !Object.hasOwn(EVENTS, event)) return undefined;
  const sent = isObject(data) ? data : {};
  const members = Object.entries<Members[string]>(EVENTS[event as keyof Table]).flatMap(([name, shape]) =>
    findMisfit(sent[name], shape) === undefined ? [[name, sent[name]]] : [],
  );
  return { event, data: Object.fromEntries(members) } as QmpEvent;
}

/** Why qemu has ended the guest (qapi/run-state.json, ShutdownCause). */
export interface Shutdown {
  reason: string;
  /** The guest itself asked for it. */
  guest: boolean;
}

export function readShutdown({ event, data }: QmpEvent): Shutdown | undefined {
  if (event !== "SHUTDOWN") return undefined;
  return { reason: data.reason ?? "unknown", guest: data.guest === true };
}
