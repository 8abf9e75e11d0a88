import type { QmpEvent } from "./events.ts";

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
