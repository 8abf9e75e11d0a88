import { closeSync, readSync, writeSync } from "node:fs";
import { withSocketAddress } from "../process/unix-socket.ts";
import { connectBlocking, sendDescriptor } from "../process/descriptors.ts";
import { formatCommand } from "./commands.ts";
import { QmpError } from "./errors.ts";
import { LineSplitter, parseQmpLine, type QmpMessage } from "./protocol.ts";

/** qemu answers at once: no command of this connection takes time. */
const LIMIT_MS = 10_000;
const MAX_LINE_BYTES = 1 << 20;
const PIECE_BYTES = 1 << 16;

/**
 * Sends a descriptor to a running qemu (`getfd`, qapi/misc.json), where it keeps its name until a command uses it. A
 * connection of its own, as Bun's sockets cannot send descriptors; the monitor serves one at a time.
 * @throws QmpError if qemu refuses it, a system error
 */
export const sendNamedDescriptor = (monitor: string, fdname: string, fd: number): Promise<void> =>
  withSocketAddress(monitor, async (address) => {
    const socket = connectBlocking(address, LIMIT_MS);
    try {
      const splitter = new LineSplitter("qemu", MAX_LINE_BYTES);
      const waiting: QmpMessage[] = [];
      const next = (): QmpMessage => {
        for (;;) {
          const message = waiting.shift();
          if (message) return message;
          const piece = Buffer.alloc(PIECE_BYTES);
          const length = readSync(socket, piece);
          if (length === 0) throw new Error("qemu closed the connection");
          for (const line of splitter.push(piece.subarray(0, length))) {
            const parsed = parseQmpLine(line);
            if (parsed) waiting.push(parsed);
          }
        }
      };
      const answer = (command: string): void => {
        for (;;) {
          const message = next();
          if (message.kind === "failure") throw new QmpError(command, message.error);
          if (message.kind === "reply") return;
        }
      };
      while (next().kind !== "greeting");
      writeSync(socket, formatCommand("qmp_capabilities", undefined, 1));
      answer("qmp_capabilities");
      sendDescriptor(socket, Buffer.from(formatCommand("getfd", { fdname }, 2)), fd);
      answer("getfd");
    } finally {
      closeSync(socket);
    }
  });
