import { chmodSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { readSmall } from "../../lib/read-file.ts";
import { parseImage } from "../../machine/parse.ts";
import { listDirectory } from "../../store/files.ts";
import { readValues } from "../../store/guest-env.ts";
import { HOST, isDiskName, isFinalFile, SNAPSHOT } from "../../store/layout.ts";
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
 * Checks received, untrusted snapshots: each file by the snapshot's own list, the chain, the headers of the images, and
 * that the settings are plain assignments, as others are code.
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
    requirePlainSettings(snapshot);
    for (const file of listDirectory(snapshot.dir))
      chmodSync(join(snapshot.dir, file), isFinalFile(file) ? 0o400 : 0o600);
  }
  const last = received.get(chain.at(-1)!)!;
  const damage = findDamage(last, (name) => received.get(name));
  if (damage !== undefined) throw refuseReceived(last.name, damage);
  reportHostUse(last);
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

function requirePlainSettings({ name, dir }: Snapshot): void {
  const text = readSmall(join(dir, HOST.guestEnv));
  if (text === undefined || readValues(text)) return;
  throw refuseReceived(
    name,
    `its ${HOST.guestEnv} has other lines than plain NAME=value, which this host would execute`,
  );
}

/** What the settings of another host's VM refer to on this one: the next run would use it. */
function reportHostUse({ dir }: Snapshot): void {
  const values = readValues(readSmall(join(dir, HOST.guestEnv)) ?? "") ?? {};
  const images = [values.IMAGES ?? []].flat().filter((text) => !isDiskName(parseImage(text)?.path ?? text));
  const used = [
    ...[values.SHARES ?? []]
      .flat()
      .filter((text) => text !== "" && !/^[^:]*:(?:rw:|ro:)?@/.test(text))
      .map((share) => `SHARES ${share}`),
    ...images.filter(Boolean).map((image) => `IMAGES ${image}`),
    ...listDirectory(dir)
      .filter((file) => file.endsWith(".defaults"))
      .map((file) => `arguments of qemu in ${file}`),
  ];
  if (used.length > 0)
    log.warn(`the VM refers to files of this host; check that before you run it: ${used.join(", ")}`);
}
