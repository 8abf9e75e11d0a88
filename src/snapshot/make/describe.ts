import { join } from "node:path";
import { formatTimestamp } from "../../lib/time.ts";
import { newSnapshotId } from "../../lib/uuid.ts";
import { lstatOf, readSmallBytes } from "../../lib/read-file.ts";
import { listDirectory, replaceFile, writeNew } from "../../store/files.ts";
import { COPY_NOTE } from "../../store/guest-env.ts";
import { defaultsName, HOST, SNAPSHOT, TPM_STATE, WORK } from "../../store/layout.ts";
import { hasRam, type Manifest } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import type { Workdir } from "../../store/workdir.ts";
import { parentKeys } from "../../store/snapshot-parent.ts";
import { findSnapshot } from "../../store/snapshots.ts";
import { computeSums } from "../../store/checksums.ts";

/** Time and description of a new snapshot. */
export interface Description {
  made: Date;
  text: string | undefined;
}

/** Writes a snapshot's settings, description and manifest, then its checksums. */
export async function describeSnapshotFiles(
  context: Context,
  vm: Vm,
  work: Workdir,
  staged: string,
  { made, text }: Description,
  stored: Pick<Manifest, "format" | "id" | "parent" | "consistency" | "files" | "machine">,
): Promise<void> {
  const manifest: Manifest = {
    version: hasRam(stored) ? 3 : stored.files.some(({ name }) => name === TPM_STATE) ? 2 : 1,
    format: stored.format,
    id: stored.id ?? newSnapshotId(),
    ...(stored.parent === undefined ? {} : parentKeys(findSnapshot(vm.hostdir, stored.parent))),
    tool: `vm ${context.version}`,
    guest: vm.settings.GUESTNAME,
    ...(vm.settings.UUID === "" ? {} : { vm: vm.settings.UUID }),
    made: made.toISOString(),
    consistency: stored.consistency,
    firstTime: lstatOf(join(work.dir, WORK.firstTime)) !== undefined,
    files: stored.files,
    ...(stored.machine && { machine: stored.machine }),
  };
  for (const name of [WORK.guestEnv, defaultsName(context.prog)]) {
    const content = readSmallBytes(join(work.dir, name)) ?? readSmallBytes(join(vm.hostdir, name));
    if (content !== undefined) writeNew(join(staged, name), content);
  }
  writeNew(join(staged, SNAPSHOT.description), text === undefined ? "" : `${text}\n`);
  writeNew(join(staged, SNAPSHOT.timestamp), `${formatTimestamp(made)}\n`);
  writeNew(join(staged, SNAPSHOT.manifest), `${JSON.stringify(manifest, null, 2)}\n`);
  await writeSums(staged);
}

/** Writes SHA-256 of every file, for `sha256sum -c SHA256SUMS`. */
export async function writeSums(staged: string): Promise<void> {
  writeNew(join(staged, SNAPSHOT.sums), await computeSums(staged, listDirectory(staged).toSorted()));
}

/** [compat] Copies the settings to HOSTDIR if it has none. */
export function keepHostFiles(context: Context, { hostdir }: Vm, work: Workdir): void {
  for (const name of [HOST.guestEnv, defaultsName(context.prog)]) {
    const target = join(hostdir, name);
    const content = lstatOf(target) ? undefined : readSmallBytes(join(work.dir, name));
    if (content === undefined) continue;
    const note = name === HOST.guestEnv ? `${COPY_NOTE}\n` : "";
    replaceFile(target, Buffer.concat([Buffer.from(note), content]));
  }
}
