/** QMP messages (qemu's docs/interop/qmp-spec). */
import { VmError } from "../lib/errors.ts";
import { formatSize } from "../lib/size.ts";
import { plain } from "../lib/text.ts";
import type { QmpErrorReply } from "./errors.ts";
import { parseEvent, type QmpEvent } from "./events.ts";
import { isObject } from "./shape.ts";

export type QmpMessage =
  | { kind: "greeting"; version: string }
  | { kind: "event"; event: QmpEvent }
  | { kind: "reply"; id: number; value: unknown }
  | { kind: "failure"; id: number; error: QmpErrorReply };

/**
 * Parses a line from qemu; undefined for messages that this program does not use.
 * @throws VmError 74 for anything else: the peer does not speak QMP
 */
export function parseQmpLine(line: string): QmpMessage | undefined {
  const message = parseJson(line, "qemu");
  if (Array.isArray(message)) return undefined;
  if (!isObject(message)) throw notJson(line, "qemu");
  if ("QMP" in message) return { kind: "greeting", version: readVersion(message.QMP) };
  const event = parseEvent(message.event, message.data);
  if (event) return { kind: "event", event };
  if (typeof message.id !== "number") return undefined;
  if (isObject(message.error))
    return { kind: "failure", id: message.id, error: parseErrorObject(message.error) };
  if ("return" in message) return { kind: "reply", id: message.id, value: message.return };
  return undefined;
}

function readVersion(greeting: unknown): string {
  const { version } = isObject(greeting) ? greeting : {};
  const { qemu } = isObject(version) ? version : {};
  const { major, minor, micro } = isObject(qemu) ? qemu : {};
  if ([major, minor, micro].every((part) => typeof part === "number")) return `${major}.${minor}.${micro}`;
  throw new VmError("io", "unexpected greeting from qemu: it has no version");
}

/** Parses an error object of QMP or of the guest agent. */
export const parseErrorObject = ({ class: kind, desc }: Record<string, unknown>): QmpErrorReply => ({
  class: typeof kind === "string" ? kind : "GenericError",
  desc: typeof desc === "string" ? desc : "no reason given",
});

/**
 * Parses a line that must be a JSON object.
 * @param peer the sender, for the error message
 * @throws VmError 74
 */
export function parseObject(line: string, peer: string): Record<string, unknown> {
  const value = parseJson(line, peer);
  if (isObject(value)) return value;
  throw notJson(line, peer);
}

function parseJson(line: string, peer: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw notJson(line, peer);
  }
}

const notJson = (line: string, peer: string): VmError =>
  new VmError("io", `unexpected data from ${peer}, not a JSON object: ${plain(line.slice(0, SHOWN))}`);

/** Characters of an invalid line that are shown. */
const SHOWN = 60;

/** A peer has sent more than the limit without a line end. */
export class LineTooLong extends VmError {
  constructor(peer: string, limitBytes: number) {
    super("io", `connection to ${peer} closed: it sent a line of more than ${formatSize(limitBytes)}`);
  }
}

export const NEWLINE = 0x0a;

/** Splits a byte stream into lines, and buffers an incomplete one of at most `limitBytes`. */
export class LineSplitter {
  #pieces: Uint8Array[] = [];
  #length = 0;

  /** @param peer the sender, for the error message */
  constructor(
    private readonly peer: string,
    private readonly limitBytes: number,
  ) {}

  /** @returns the lines that `bytes` completes, without their ends @throws LineTooLong */
  push(bytes: Uint8Array): string[] {
    const end = bytes.lastIndexOf(NEWLINE);
    const rest = bytes.subarray(end + 1);
    if (this.#length + (end < 0 ? bytes.length : bytes.indexOf(NEWLINE)) > this.limitBytes) this.#refuse();
    if (end < 0) {
      this.#keep(rest);
      return [];
    }
    const text = Buffer.concat([...this.#pieces.splice(0), bytes.subarray(0, end)]).toString("utf8");
    this.#length = 0;
    this.#keep(rest);
    return text
      .split("\n")
      .map((line) => line.replace(/\r$/, ""))
      .filter((line) => line !== "");
  }

  /** Copies: the caller reuses its buffer. */
  #keep(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#pieces.push(bytes.slice());
    this.#length += bytes.length;
  }

  #refuse(): never {
    this.#pieces = [];
    this.#length = 0;
    throw new LineTooLong(this.peer, this.limitBytes);
  }
}
