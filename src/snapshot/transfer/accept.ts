import { chmodSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { readSmall } from "../../lib/read-file.ts";
import { counted } from "../../lib/text.ts";
import { checkGuestEnv } from "../../config/check-guest-env.ts";
import { HEAD_BYTES, parseImageHeader, readOwnHeader } from "../../qemu/image-header.ts";
import { listDirectory } from "../../store/files.ts";
import { readValues } from "../../store/guest-env.ts";
import { HOST, isDiskName, isFinalFile, isStateName, SNAPSHOT } from "../../store/layout.ts";
import { readGzHead } from "../../store/gz-head.ts";
import { parseManifest } from "../../store/manifest.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { loadSums } from "../../store/checksums.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { memberName, type Index } from "./index-file.ts";

const refuseReceived = (name: string, reason: string): VmError =>
  new VmError("io", `refusing the export: its ${name} is not a valid snapshot: ${reason}`, {
    hint: "check where it comes from, and export it again",
  });

/**
 * Checks received, untrusted snapshots: each file by the snapshot's own list, the chain, the headers of the images, also of
 * compressed ones, and the settings.
 * @param sums of the received files, by member
 * @throws 74 if one is invalid, 78 if a newer version wrote it
 */
export function acceptReceived(staged: string, { chain }: Index, sums: ReadonlyMap<string, string>): void {
  const received = new Map(chain.map((name, at) => [name, readReceived(join(staged, String(at)), name)]));
  for (const [at, name] of chain.entries()) {
    const snapshot = received.get(name)!;
    const parent = at === 0 ? undefined : chain[at - 1];
    if (snapshot.manifest?.parent !== parent)
      throw refuseReceived(
        name,
        `its parent is ${snapshot.manifest?.parent ?? "none"}, not ${parent ?? "none"}`,
      );
    requireListed(snapshot, at, sums);
    requireUsableSettings(snapshot, at === chain.length - 1);
    for (const file of listDirectory(snapshot.dir)) {
      requirePossible(snapshot, file);
      chmodSync(join(snapshot.dir, file), isFinalFile(file) ? 0o400 : 0o600);
    }
  }
  const last = received.get(chain.at(-1)!)!;
  const damage = findDamage(last, (name) => received.get(name));
  if (damage !== undefined) throw refuseReceived(last.name, damage);
}

function readReceived(dir: string, name: string): Snapshot {
  const text = readSmall(join(dir, SNAPSHOT.manifest));
  return {
    name,
    dir,
    made: new Date(0),
    manifest: text === undefined ? undefined : parseManifest(text, name),
  };
}

function requireListed({ name, dir }: Snapshot, at: number, sums: ReadonlyMap<string, string>): void {
  const parsed = loadSums(dir);
  // Snapshots of the earlier program have no checksums.
  if (!parsed) return;
  if (parsed.problems.length > 0) throw refuseReceived(name, parsed.problems[0]!);
  for (const file of listDirectory(dir)) {
    if (file === SNAPSHOT.sums) continue;
    const listed = parsed.sums.get(file);
    if (listed === undefined && file !== SNAPSHOT.description)
      throw refuseReceived(name, `${SNAPSHOT.sums} does not name ${file}`);
    if (listed !== undefined && listed !== sums.get(memberName({ snapshot: at, name: file })))
      throw refuseReceived(name, `${file}: its checksum is wrong`);
  }
}

/** The settings of the VM: plain assignments, as others are code, and values that are allowed. */
function requireUsableSettings({ name, dir }: Snapshot, isLast: boolean): void {
  const text = readSmall(join(dir, HOST.guestEnv));
  if (text === undefined) return;
  if (!readValues(text))
    throw refuseReceived(
      name,
      `its ${HOST.guestEnv} has other lines than plain NAME=value, which this host would execute`,
    );
  // Older ones are restored on request only, which reports them.
  const { complaints } = isLast ? checkGuestEnv(text, HOST.guestEnv, () => "") : { complaints: [] };
  if (complaints.length > 0)
    throw new VmError(
      "io",
      `refusing the export: the settings of ${name} have ${counted(complaints.length, "error")}:\n  ${complaints.map(({ file, line, message }) => `${file}:${line}: ${message}`).join("\n  ")}`,
      {
        hint: "correct them in the original VM, and export it again; a newer version may accept them",
      },
    );
}

/** A gz file has at most 1032 times its length, by the format (zlib's technical details, "Maximum compression factor"). */
const MAX_GZIP_RATIO = 1032;

/** Checks what the manifest says of a file with what the file can be, and the header of a compressed disk. */
function requirePossible(snapshot: Snapshot, file: string): void {
  const name = file.slice(0, -SNAPSHOT.gz.length);
  const path = join(snapshot.dir, file);
  const known = snapshot.manifest?.files.find((item) => item.file === file);
  if (known && !file.endsWith(SNAPSHOT.gz) && !isStateName(known.name)) {
    if (readOwnHeader(path).qcow2?.newer === true)
      throw refuseReceived(snapshot.name, `${file} has features of a newer qcow2`);
    return;
  }
  if (!file.endsWith(SNAPSHOT.gz)) return;
  if (known && known.bytes > (known.storedBytes + 1) * MAX_GZIP_RATIO)
    throw refuseReceived(snapshot.name, `${file} cannot decompress to ${known.bytes} bytes`);
  if (!isDiskName(name)) return;
  const { format, refersTo, qcow2 } = parseImageHeader(
    Buffer.concat([readGzHead(path, HEAD_BYTES), Buffer.alloc(HEAD_BYTES)]),
  );
  const virtualBytes = qcow2?.virtualBytes;
  const reason =
    refersTo === undefined
      ? format !== "qcow2"
        ? `is ${format}, not qcow2`
        : qcow2?.newer
          ? "has features of a newer qcow2"
          : known?.virtualBytes !== undefined && known.virtualBytes !== virtualBytes
            ? `holds a disk of ${virtualBytes} bytes instead of ${known.virtualBytes}`
            : undefined
      : `refers to an external ${refersTo}`;
  if (reason !== undefined) throw refuseReceived(snapshot.name, `${file} ${reason}`);
}
