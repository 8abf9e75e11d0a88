import { closeSync, statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { MAX_SMALL_BYTES, openForReading } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { parseTarHeader, TAR_BLOCK, tarPadding, type TarMember } from "../../lib/tar.ts";
import { isPlainName, plain } from "../../lib/text.ts";
import { readExactly, type ByteSource } from "../../process/byte-source.ts";
import { exec } from "../../process/exec.ts";
import { createFile, requireSpace, writeNew } from "../../store/files.ts";
import type { Context } from "../../vm/context.ts";
import { parseOvfDescriptor, type OvfDescriptor } from "./descriptor.ts";

/** No OVA comes near this. */
const MOST_MEMBERS = 1000;
const MAX_PAX_BYTES = 1 << 16;

const refuseOva = (reason: string, hint?: string): VmError =>
  new VmError("io", `refusing the OVA: ${reason}`, { hint });
const truncatedOva = (): VmError =>
  refuseOva("it is truncated", "run the command again with all of it: nothing is kept of the part");

const readWholly = (source: ByteSource, bytes: number): Promise<Buffer> =>
  readExactly(source, bytes, truncatedOva);

/** Data of a small member. */
async function readSmallMember(
  source: ByteSource,
  { name, bytes }: TarMember,
  limit: number,
): Promise<Buffer> {
  if (bytes > limit) throw refuseOva(`${plain(name)} is larger than ${formatSize(limit)}`);
  const content = await readWholly(source, bytes);
  await readWholly(source, tarPadding(bytes));
  return content;
}

/** Records `LENGTH KEY=VALUE\n` of a pax header (POSIX.1-2001): name and size of the next member. */
function parsePax(content: Buffer): { name?: string; bytes?: number } {
  const found: { name?: string; bytes?: number } = {};
  for (let at = 0; at < content.length;) {
    const length = Number(/^(\d{1,5}) /.exec(content.toString("latin1", at, at + 6))?.[1] ?? 0);
    const [, key, value = ""] =
      /^\d+ ([^=]+)=([^]*)\n$/.exec(content.toString("utf8", at, at + length)) ?? [];
    if (key === undefined) throw refuseOva("a pax header is damaged");
    if (key === "path") found.name = value;
    if (key === "size") found.bytes = Number(value);
    // Sparse files have other data than their size says.
    if (key.startsWith("GNU.sparse")) throw refuseOva("it has sparse members");
    at += length;
  }
  return found;
}

const isZero = (block: Buffer): boolean => block.every((byte) => byte === 0);

/** The next member that is a file; undefined at the end of the archive, which has two blocks of zeroes. @throws 74 */
async function nextMember(source: ByteSource): Promise<TarMember | undefined> {
  const before: { name?: string; bytes?: number } = {};
  for (let count = 0; count < MOST_MEMBERS; count++) {
    const block = await readWholly(source, TAR_BLOCK);
    if (isZero(block)) {
      if (isZero(await readWholly(source, TAR_BLOCK))) return undefined;
      throw refuseOva("its end is damaged");
    }
    const member = parseTarHeader(block);
    if (!member) throw refuseOva("it is not a tar archive, or damaged");
    if (member.type === "x")
      Object.assign(before, parsePax(await readSmallMember(source, member, MAX_PAX_BYTES)));
    else if (member.type === "g") await readSmallMember(source, member, MAX_PAX_BYTES);
    else if (member.type === "L")
      before.name = (await readSmallMember(source, member, MAX_PAX_BYTES)).toString().replace(/\0+$/, "");
    else {
      const { name, bytes, type } = { ...member, ...before };
      const bare = name.replace(/^\.\//, "");
      if (type !== "0") throw refuseOva(`${plain(name)} is no regular file`);
      if (!isPlainName(bare) || bare.startsWith("."))
        throw refuseOva(`it has a member ${JSON.stringify(name)}`);
      if (!Number.isSafeInteger(bytes) || bytes < 0) throw refuseOva(`the size of ${bare} is not possible`);
      return { name: bare, bytes, type };
    }
  }
  throw refuseOva("it has too many members");
}

/** The first member of an OVA. */
export interface OvaHead {
  /** Name of the descriptor. */
  name: string;
  text: Buffer;
  descriptor: OvfDescriptor;
}

/** @throws 74 if it is no OVA, or its descriptor is damaged */
export async function readOvaHead(source: ByteSource): Promise<OvaHead> {
  const first = await nextMember(source);
  if (!first?.name.toLowerCase().endsWith(".ovf")) throw refuseOva("its first member is no OVF descriptor");
  const text = await readSmallMember(source, first, MAX_SMALL_BYTES);
  return { name: first.name, text, descriptor: parseOvfDescriptor(text.toString()) };
}

/**
 * Unpacks the disks, and compares them and the descriptor with the manifest if there is one.
 * @param staged a new directory of this user, for them
 * @throws 73 without space, 74 if it is damaged, truncated, or has anything but plain files
 */
export async function unpackOva(
  context: Context,
  source: ByteSource,
  staged: string,
  head: OvaHead,
): Promise<void> {
  writeNew(join(staged, head.name), head.text);
  const wanted = new Set(head.descriptor.disks.flatMap(({ file }) => file ?? []));
  const seen = new Set([head.name]);
  let manifest: string | undefined;
  for (let member = await nextMember(source); member; member = await nextMember(source)) {
    const { name, bytes } = member;
    if (seen.size === MOST_MEMBERS) throw refuseOva("it has too many members");
    if (seen.has(name)) throw refuseOva(`it has ${name} twice`);
    seen.add(name);
    if (name.toLowerCase().endsWith(".mf"))
      manifest = (await readSmallMember(source, member, MAX_SMALL_BYTES)).toString();
    else if (wanted.has(name)) await unpackMember(context, source, staged, member);
    else await source.skip(bytes + tarPadding(bytes), `cannot read ${source.name}`);
  }
  const missing = [...wanted].find((name) => !seen.has(name));
  if (missing !== undefined) throw refuseOva(`${missing} is missing`);
  if (manifest !== undefined) await compareManifest(staged, manifest, head.name, [...wanted]);
}

async function unpackMember(
  context: Context,
  source: ByteSource,
  staged: string,
  { name, bytes }: TarMember,
): Promise<void> {
  requireSpace(staged, bytes, "import the VM", "snapshots");
  const path = join(staged, name);
  const fd = createFile(path);
  const meter = context.meter(`read ${name}`, bytes);
  try {
    await source.copyTo(fd, bytes, `cannot read ${source.name}`, (done) => meter.update(done));
  } finally {
    meter.finish();
    closeSync(fd);
  }
  if (statSync(path).size !== bytes) throw truncatedOva();
  await readWholly(source, tarPadding(bytes));
}

/** `SHA256(disk.vmdk)= 01ab…`: OVF 1.0 has SHA1, 2.0 others. Some programs write blanks before the name. */
const MANIFEST_LINE = /^(SHA(?:1|256|384|512))\s?\((.+)\)\s?=\s*([0-9a-f]{40,128})$/i;

/** DSP0243: it lists all files of the package. Without the descriptor some programs write it, without a disk none. */
async function compareManifest(
  staged: string,
  text: string,
  descriptor: string,
  disks: readonly string[],
): Promise<void> {
  const listed = new Set<string>();
  for (const line of text.split(/\r?\n/).filter((one) => one.trim() !== "")) {
    const [, method = "", name = "", sum = ""] = MANIFEST_LINE.exec(line.trim()) ?? [];
    if (sum === "") throw refuseOva("its manifest is damaged");
    listed.add(name);
    if (name !== descriptor && !disks.includes(name)) continue;
    const fd = openForReading(join(staged, name));
    try {
      const { stdout } = await exec([`${method.toLowerCase()}sum`], {
        stdin: fd,
        what: `cannot read ${name}`,
      });
      if (stdout.split(" ", 1)[0] !== sum.toLowerCase()) throw refuseOva(`the checksum of ${name} is wrong`);
    } finally {
      closeSync(fd);
    }
  }
  const unlisted = disks.find((name) => !listed.has(name));
  if (unlisted !== undefined) throw refuseOva(`its manifest does not list ${unlisted}`);
  if (!listed.has(descriptor))
    log.warn(`the manifest of the OVA does not list ${descriptor}: it is unchecked`);
}
