/**
 * QMP events that this program uses, with the members that it reads (qemu's qapi/*.json). A test compares them with qemu's
 * own schema.
 */
import { findShapeMismatch, isObject, type Members, type ValueOf } from "./shape.ts";

export const QMP_EVENTS = {
  SHUTDOWN: { guest: "boolean", reason: "string" },
  STOP: {},
  RESUME: {},
  /** The guest's panic device was written to. */
  GUEST_PANICKED: {},
  /** Not sent for a reset that ends qemu (`-no-reboot`). */
  RESET: { guest: "boolean" },
  BLOCK_IO_ERROR: {
    "node-name": "string",
    operation: "string",
    action: { known: ["ignore", "report", "stop"] },
    nospace: "boolean",
    reason: "string",
  },
  /** The guest has released a device: it is gone. */
  DEVICE_DELETED: { device: "string" },
  /** The guest has refused to release one. */
  DEVICE_UNPLUG_GUEST_ERROR: { device: "string" },
  DEVICE_TRAY_MOVED: { id: "string", "tray-open": "boolean" },
  JOB_STATUS_CHANGE: { id: "string" },
  MIGRATION: { status: { known: ["completed", "failed"] } },
  /** A program in the guest has opened or closed a virtio-serial port. */
  VSERPORT_CHANGE: { id: "string", open: "boolean" },
} as const satisfies Record<string, Members>;

type EventTable = typeof QMP_EVENTS;

/** One event; a member is absent if qemu has not sent it, or sent another type. */
export type QmpEvent = {
  [Name in keyof EventTable]: { event: Name; data: Partial<ValueOf<EventTable[Name]>> };
}[keyof EventTable];

/** @returns undefined for an event that is not in QMP_EVENTS */
export function parseEvent(event: unknown, data: unknown): QmpEvent | undefined {
  if (typeof event !== "string" || !Object.hasOwn(QMP_EVENTS, event)) return undefined;
  const sent = isObject(data) ? data : {};
  const members = Object.entries<Members[string]>(QMP_EVENTS[event as keyof EventTable]).flatMap(
    ([name, shape]) => (findShapeMismatch(sent[name], shape) === undefined ? [[name, sent[name]]] : []),
  );
  return { event, data: Object.fromEntries(members) } as QmpEvent;
}

/**
 * Follows a run's panics.
 * @param before whether the guest's kernel had panicked before this event
 * @returns whether it has, and the guest was not reset since
 */
export const followPanic = (before: boolean, { event }: QmpEvent): boolean =>
  event === "GUEST_PANICKED" || (before && event !== "RESET");

/** Why the guest was shut down (qapi/run-state.json, ShutdownCause). */
export interface Shutdown {
  reason: string;
  /** Requested by the guest. */
  guest: boolean;
}

export function readShutdown({ event, data }: QmpEvent): Shutdown | undefined {
  if (event !== "SHUTDOWN") return undefined;
  return { reason: data.reason ?? "unknown", guest: data.guest === true };
}

/**
 * Device id of a virtio-serial port, by its place among the machine's channels. qemu reports the opening and closing of ports
 * that have one only (hw/char/virtio-console.c).
 */
export const portId = (index: number): string => `channel${index}-dev`;

/** The guest agent's channel is the first. */
const AGENT_PORT = portId(0);

/** Has a program in the guest opened (or closed) the agent's port? The user's own devices may have ports, too. */
export const changesAgentPort = ({ event, data }: QmpEvent, open: boolean): boolean =>
  event === "VSERPORT_CHANGE" && data.id === AGENT_PORT && data.open === open;
