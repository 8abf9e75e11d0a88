import { closeSync } from "node:fs";
import { receiveDescriptor, socketPair } from "./descriptors.ts";
import { start, type Finished } from "./exec.ts";

/** A program that this one starts gets its socket as this descriptor. */
export const SENDER_FD = 3;

/**
 * Runs a program that sends a descriptor over `SENDER_FD`.
 * @returns the descriptor, or how the program ended without sending one
 */
export async function receiveFrom(
  argv: readonly string[],
): Promise<{ fd: number } | { fd: undefined; result: Finished }> {
  const [own, other] = socketPair();
  try {
    const child = start(argv, { furtherFds: [other] });
    const result = await child.done;
    const fd = receiveDescriptor(own);
    return fd === undefined ? { fd, result } : { fd };
  } finally {
    closeSync(own);
    closeSync(other);
  }
}
