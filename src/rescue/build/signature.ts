import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";

const MAGIC = "~Module signature appended~\n";
/** struct module_signature (Linux, include/linux/module_signature.h): its last word is the signature's length. */
const TRAILER_BYTES = 12 + MAGIC.length;

/** Length of the signature at a module's end; 0 if it has none. @param tail its last 40 bytes or more */
export function parseSignatureBytes(tail: Buffer): number {
  if (tail.length < TRAILER_BYTES || tail.toString("latin1", tail.length - MAGIC.length) !== MAGIC) return 0;
  return TRAILER_BYTES + tail.readUInt32BE(tail.length - MAGIC.length - 4);
}

/** Strips a module's signature: checking it takes the kernel longer than loading the module. */
export function stripSignature(path: string): void {
  const fd = openSync(path, "r+");
  try {
    const { size } = fstatSync(fd);
    const tail = Buffer.alloc(TRAILER_BYTES);
    if (size < tail.length) return;
    readSync(fd, tail, 0, tail.length, size - tail.length);
    const cut = parseSignatureBytes(tail);
    if (cut > 0 && cut < size) ftruncateSync(fd, size - cut);
  } finally {
    closeSync(fd);
  }
}
