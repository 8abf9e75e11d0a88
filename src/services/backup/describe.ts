import { join } from "node:path";
import { formatTimestamp } from "../../lib/time.ts";
import { newSnapshotId } from "../../lib/uuid.ts";
import { exec, findProgram } from "../../process/exec.ts";
import { listDirectory, lstatOf, readSmallBytes, replaceFile, writeNew } from "../../store/files.ts";
import { defaultsName, HOST, SNAPSHOT, WORK } from "../../store/layout.ts";
import type { Manifest } from "../../store/manifest.ts";
import type { Context } from "../context.ts";
import type { Present, Vm } from "../open.ts";

/** What is told of a snapshot besides how it was stored. */
export interface Description {
  made: Date;
  text: string | undefined;
}

/** Writes a snapshot's settings, description and manifest, and its checksums last. */
export async function describeSnapshotFiles(
  context: Context,
  vm: Vm,
  work: Present,
  staged: string,
  { made, text }: Description,
  stored: Pick<Manifest, "format" | "id" | "parent" | "consistency" | "files">,
): Promise<void> {
  const manifest: Manifest = {
    version: 1,
    format: stored.format,
    id: stored.id ?? newSnapshotId(),
    ...(stored.parent === undefined ? {} : { parent: stored.parent }),
    tool: `vm ${context.version}`,
    guest: vm.settings.GUESTNAME,
    ...(vm.settings.UUID === "" ? {} : { vm: vm.settings.UUID }),
    made: made.toISOString(),
    consistency: stored.consistency,
    firstTime: lstatOf(join(work.dir, WORK.firstTime)) !== undefined,
    files: stored.files,
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

/** SHA-256 of every file, written last: `sha256sum -c SHA256SUMS` verifies the snapshot anywhere. */
export async function writeSums(staged: string): Promise<void> {
  const names = listDirectory(staged).toSorted();
  writeNew(join(staged, SNAPSHOT.sums), (await sumsByOpenssl(staged, names)) ?? (await sums(staged, names)));
}

async function sums(staged: string, names: readonly string[]): Promise<string> {
  // By way of us, for sha256sum does not say why it cannot write.
  const { stdout } = await exec(["sha256sum", "--", ...names], {
    cwd: staged,
    what: "cannot compute checksums",
  });
  return stdout;
}

/** openssl uses the processor's instructions for it, which the coreutils of many a system do not: four times as fast. */
async function sumsByOpenssl(staged: string, names: readonly string[]): Promise<string | undefined> {
  if (!findProgram("openssl") || !names.every((name) => /^[\w.][\w.-]*$/.test(name))) return undefined;
  const { status, stdout } = await exec(["openssl", "dgst", "-sha256", "-r", ...names], {
    cwd: staged,
    anyStatus: true,
  });
  const lines = stdout.split("\n").slice(0, -1);
  const isSum = (line: string, index: number): boolean =>
    /^[0-9a-f]{64} \*/.test(line) && line.slice(66) === names[index];
  if (status !== 0 || lines.length !== names.length || !lines.every(isSum)) return undefined;
  return stdout.replaceAll(" *", "  ");
}

/** [compat] HOSTDIR gets the settings where it has none. */
export function keepHostFiles(context: Context, { hostdir }: Vm, work: Present): void {
  for (const name of [HOST.guestEnv, defaultsName(context.prog)]) {
    const target = join(hostdir, name);
    const content = readSmallBytes(join(work.dir, name));
    if (content !== undefined && !lstatOf(target)) replaceFile(target, content);
  }
}
