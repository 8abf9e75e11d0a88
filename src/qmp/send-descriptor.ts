import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { hasErrno } from "../lib/errors.ts";
import { withSocketAddress } from "../process/unix-socket.ts";
import { connectBlocking, sendDescriptor } from "../process/descriptors.ts";
import { checkReply, formatCommand, LENT, QMP_COMMANDS, type ArgsOf, type ReplyOf } from "./commands.ts";
import { QmpError, QmpTimeout } from "./errors.ts";
import { LineSplitter, parseQmpLine, type QmpMessage } from "./protocol.ts";

/** qemu answers at once: no command of this connection takes time. */
const LIMIT_MS = 10_000;
const MAX_LINE_BYTES = 1 << 20;
const PIECE_BYTES = 1 << 16;

/**
 * Executes a command with a descriptor. A connection of its own, as Bun's sockets cannot send descriptors; the monitor serves
 * one at a time.
 * @throws QmpError if qemu refuses it, QmpTimeout (75) if another client is connected, a system error
 */
const executeWithDescriptor = <Name extends "getfd" | "add-fd">(
  monitor: string,
  command: Name,
  args: ArgsOf<Name>,
  fd: number,
): Promise<unknown> =>
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
      const answer = (name: string): unknown => {
        for (;;) {
          const message = next();
          if (message.kind === "failure") throw new QmpError(name, message.error);
          if (message.kind === "reply") return message.value;
        }
      };
      while (next().kind !== "greeting");
      writeSync(socket, formatCommand("qmp_capabilities", undefined, 1));
      answer("qmp_capabilities");
      sendDescriptor(socket, Buffer.from(formatCommand(command, args, 2)), fd);
      return answer(command);
    } catch (error) {
      if (hasErrno(error, "EAGAIN")) throw new QmpTimeout(`no QMP greeting on ${monitor}`);
      throw error;
    } finally {
      closeSync(socket);
    }
  });

/** Sends a descriptor to a running qemu (`getfd`, qapi/misc.json), where it keeps its name until a command uses it. */
export async function sendNamedDescriptor(monitor: string, fdname: string, fd: number): Promise<void> {
  await executeWithDescriptor(monitor, "getfd", { fdname }, fd);
}

/**
 * Hands a file to a running qemu that cannot open it by its path (`add-fd`, qapi/misc.json). qemu closes it with the node
 * that uses it.
 * @returns the name that qemu opens it by
 */
export async function lendFile(monitor: string, path: string, flags: number): Promise<string> {
  const fd = openSync(path, flags);
  try {
    const reply = await executeWithDescriptor(monitor, "add-fd", { opaque: path }, fd);
    checkReply("add-fd", QMP_COMMANDS["add-fd"], reply);
    return `${LENT}${(reply as ReplyOf<"add-fd">)["fdset-id"]}`;
  } finally {
    closeSync(fd);
  }
}
