/** QMP messages (qemu's docs/interop/qmp-spec). */

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

export interface QmpErrorReply {
  class: string;
  desc: string;
}

export type QmpMessage =
  | { kind: "greeting"; version: string }
  | { kind: "event"; event: QmpEvent }
  | { kind: "reply"; id: number; value: unknown }
  | { kind: "failure"; id: number; error: QmpErrorReply };

/** Understands one line from qemu; undefined for what is none of our business. */
export function parseQmpLine(line: string): QmpMessage | undefined {
  const message = JSON.parse(line) as Record<string, any>;
  if ("QMP" in message) {
    const { major, minor, micro } = message.QMP.version.qemu;
    return { kind: "greeting", version: `${major}.${minor}.${micro}` };
  }
  if ("event" in message) return { kind: "event", event: { event: message.event, data: message.data ?? {} } };
  if ("error" in message) return { kind: "failure", id: message.id, error: message.error };
  if ("return" in message) return { kind: "reply", id: message.id, value: message.return };
  return undefined;
}

/** Cuts a byte stream into lines, keeping an unfinished one for the next piece. */
export class LineSplitter {
  #rest = "";
  readonly #decoder = new TextDecoder();

  /** @returns the lines that `bytes` completes, without their ends */
  push(bytes: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop()!;
    return lines.map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
  }
}
