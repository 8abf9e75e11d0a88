/** Packets of SFTP, version 3 (draft-ietf-secsh-filexfer-02): a length, a type, and in all but two an id. */
import { VmError } from "../lib/errors.ts";

export const SFTP = { readdir: 12, realpath: 16, readlink: 19, status: 101, name: 104 } as const;
const PERMISSION_DENIED = 3;

/** Length, type, id; the two without one have a version there. */
const HEADER_BYTES = 9;
const LENGTH_BYTES = 4;
/** Of a packet that is kept: a path or two, and their attributes. */
const MAX_KEPT_BYTES = 64 << 10;

const invalid = (): VmError => new VmError("io", "invalid SFTP packet");

/** What happens to a packet, by its header. */
export type Decide = (type: number, id: number) => "pass" | ((packet: Buffer) => Buffer);

/** A stream of packets: most are passed on as they come, some are kept until they are complete, and replaced. */
export class SftpStream {
  #held = Buffer.alloc(0);
  #replace: ((packet: Buffer) => Buffer) | undefined;
  #passing = 0;

  constructor(private readonly decide: Decide) {}

  /** @returns what to pass on; parts of `bytes` as they are @throws 74 for what is no packet */
  push(bytes: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let rest = bytes;
    while (rest.length > 0) {
      const wanted = this.#passing || this.#wanted() - this.#held.length;
      const part = rest.subarray(0, wanted);
      rest = rest.subarray(part.length);
      if (this.#passing > 0) {
        this.#passing -= part.length;
        pieces.push(part);
      } else {
        this.#held = Buffer.concat([this.#held, part]);
        if (this.#held.length === this.#wanted()) pieces.push(...this.#onHeld());
      }
    }
    return pieces;
  }

  /** Bytes of the packet, once its header says that it is kept. */
  #wanted(): number {
    return this.#replace ? LENGTH_BYTES + this.#held.readUInt32BE(0) : HEADER_BYTES;
  }

  #onHeld(): Buffer[] {
    const packet = this.#held;
    const length = LENGTH_BYTES + packet.readUInt32BE(0);
    if (length < HEADER_BYTES) throw invalid();
    if (!this.#replace) {
      const decision = this.decide(packet[LENGTH_BYTES]!, packet.readUInt32BE(LENGTH_BYTES + 1));
      if (decision === "pass") {
        this.#held = Buffer.alloc(0);
        this.#passing = length - HEADER_BYTES;
        return [packet];
      }
      if (length > MAX_KEPT_BYTES) throw invalid();
      this.#replace = decision;
      if (length > HEADER_BYTES) return [];
    }
    const replaced = this.#replace(packet);
    this.#held = Buffer.alloc(0);
    this.#replace = undefined;
    return [replaced];
  }
}

/** The text at `at` of a packet. @throws 74 if it is cut off */
function readPacketText(packet: Buffer, at: number): string {
  if (at + 4 > packet.length) throw invalid();
  const end = at + 4 + packet.readUInt32BE(at);
  if (end > packet.length) throw invalid();
  return packet.toString("latin1", at + 4, end);
}

/** The path of a request. */
export const readPath = (packet: Buffer): string => readPacketText(packet, HEADER_BYTES);

/** The only name of a reply. @throws 74 if it has another number of them */
export function readLinkName(packet: Buffer): string {
  if (packet.length < HEADER_BYTES + 4 || packet.readUInt32BE(HEADER_BYTES) !== 1) throw invalid();
  return readPacketText(packet, HEADER_BYTES + 4);
}

function buildPacket(type: number, id: number, ...parts: (number | string)[]): Buffer {
  const body = parts.flatMap((part) => {
    const number = Buffer.alloc(4);
    number.writeUInt32BE(typeof part === "number" ? part : part.length);
    return typeof part === "number" ? [number] : [number, Buffer.from(part, "latin1")];
  });
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(HEADER_BYTES - LENGTH_BYTES + body.reduce((sum, { length }) => sum + length, 0));
  header[LENGTH_BYTES] = type;
  header.writeUInt32BE(id, LENGTH_BYTES + 1);
  return Buffer.concat([header, ...body]);
}

/** A reply to `readlink`: the name, the same as a line of `ls -l`, and no attributes. */
export const buildName = (id: number, name: string): Buffer => buildPacket(SFTP.name, id, 1, name, name, 0);

export const buildDenied = (id: number): Buffer =>
  buildPacket(SFTP.status, id, PERMISSION_DENIED, "it refers to a file outside the mount", "");
