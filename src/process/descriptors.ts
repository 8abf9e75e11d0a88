/** Pairs of connected sockets, and descriptors that are sent over them (unix(7), SCM_RIGHTS). */
import { closeSync } from "node:fs";
import { ffi } from "./c-library.ts";
import { AF_UNIX, libc, SOCK_STREAM, systemError, unixAddress } from "./libc.ts";
import { O_CLOEXEC } from "./open-flags.ts";

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** struct msghdr, iovec and cmsghdr with one descriptor, on 64-bit Linux (recvmsg(2), cmsg(3)). */
const HEADER_BYTES = 56;
const VECTOR_BYTES = 16;
const CONTROL_BYTES = 24;
const CONTROL_LENGTH = 20;

/** Two connected sockets with close-on-exec: children inherit one only as one of their `furtherFds`. */
export function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  if (libc().socketpair(AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0, ffi().ptr(fds)) !== 0)
    throw systemError("socketpair");
  return [fds[0]!, fds[1]!];
}

const address = (bytes: Uint8Array): bigint => BigInt(ffi().ptr(bytes));

function messageHeader(data: Uint8Array, control: Uint8Array): { header: Buffer; vector: Buffer } {
  const vector = Buffer.alloc(VECTOR_BYTES);
  vector.writeBigUInt64LE(address(data), 0);
  vector.writeBigUInt64LE(BigInt(data.length), 8);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeBigUInt64LE(address(vector), 16);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(address(control), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  return { header, vector };
}

const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;

/**
 * Connects to a Unix socket whose reads and writes block, at most for `limitMs` (socket(7)); 0: without limit.
 * @param path at most 107 bytes
 */
export function connectBlocking(path: string, limitMs: number): number {
  const { socket, connect, setsockopt } = libc();
  const fd = socket(AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0);
  if (fd < 0) throw systemError("socket");
  const limit = Buffer.alloc(16);
  limit.writeBigInt64LE(BigInt(Math.ceil(limitMs / 1000)), 0);
  const at = unixAddress(path);
  const failed =
    [SO_RCVTIMEO, SO_SNDTIMEO].some(
      (option) => setsockopt(fd, SOL_SOCKET, option, ffi().ptr(limit), limit.length) !== 0,
    ) || connect(fd, ffi().ptr(at), at.length) !== 0;
  if (!failed) return fd;
  const error = systemError("connect");
  closeSync(fd);
  throw error;
}

/** Sends bytes with a descriptor; the receiver gets a copy of it. @throws a system error */
export function sendDescriptor(socket: number, data: Uint8Array, fd: number): void {
  const control = Buffer.alloc(CONTROL_BYTES);
  control.writeBigUInt64LE(BigInt(CONTROL_LENGTH), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, 16);
  // The kernel reads the vector by its address: it must live until the call.
  const { header, vector } = messageHeader(data, control);
  if (Number(libc().sendmsg(socket, ffi().ptr(header), MSG_NOSIGNAL)) !== data.length)
    throw systemError("sendmsg");
  vector.fill(0);
}

/** Receives a descriptor that was sent before; undefined if there was none. */
export function receiveDescriptor(socket: number): number | undefined {
  const control = Buffer.alloc(CONTROL_BYTES);
  const { header, vector } = messageHeader(Buffer.alloc(1), control);
  const got = Number(libc().recvmsg(socket, ffi().ptr(header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  vector.fill(0);
  const has =
    got > 0 &&
    control.readBigUInt64LE(0) === BigInt(CONTROL_LENGTH) &&
    control.readInt32LE(8) === SOL_SOCKET &&
    control.readInt32LE(12) === SCM_RIGHTS;
  return has ? control.readInt32LE(16) : undefined;
}
