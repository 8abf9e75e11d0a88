import { hostname } from "node:os";
import { closeSync, fstatSync, rmdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { sha256 } from "../../lib/crypto.ts";
import { VmError } from "../../lib/errors.ts";
import { log, snapshotName } from "../../lib/log.ts";
import { openForReading } from "../../lib/read-file.ts";
import { formatSumLine } from "../../lib/sha256sums.ts";
import { formatSize } from "../../lib/size.ts";
import { TAR_END, tarLength, tarPadding } from "../../lib/tar.ts";
import { formatDuration } from "../../lib/time.ts";
import { copyBytes, requireCopier } from "../../process/copy-bytes.ts";
import { computeSum } from "../../store/checksums.ts";
import { fileError, removeQuietly } from "../../store/files.ts";
import { isStateName, PARTIAL } from "../../store/layout.ts";
import { beginReadingIfPossible, type ReadSnapshot } from "../../store/reading.ts";
import { followChain } from "../../store/snapshot-chain.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import {
  findBackups,
  listSnapshots,
  makeBackups,
  nextSnapshotName,
  type Snapshot,
} from "../../store/snapshots.ts";
import type { Context, Meter } from "../../vm/context.ts";
import { findHostdir, openVm } from "../../vm/find.ts";
import { readIdentity } from "../../vm/identity.ts";
import { withVm } from "../../vm/open.ts";
import { requireOwn } from "../../vm/ownership.ts";
import type { TransferFormat } from "../choices.ts";
import { formatIndex, INDEX, memberHeader, memberName, TRAILER, type Index } from "./index-file.ts";
import { openExportOutput, type ExportOutput } from "./output.ts";
import { exportPartsOf, type ExportPart } from "./parts.ts";
import { openWorking, stageWorking } from "./working-parts.ts";

/** Arguments of `export`. */
export interface ExportRequest {
  /** Absent: the working disks. */
  snapshot: string | undefined;
  /** Path, as typed; absent: stdout. */
  output: string | undefined;
  format: TransferFormat;
}

/**
 * Writes a snapshot with its parents, or a VM that is off, to a file or to stdout as one stream.
 * @throws 64 if stdout is a terminal, 66 without such a snapshot, 74 if it is damaged or the reader is gone, 75 if the VM runs
 */
export async function exportVm(context: Context, request: ExportRequest): Promise<void> {
  requireCopier();
  if (request.snapshot === undefined) return exportWorking(context, request);
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "export");
  // The VM is not locked, as this may take long.
  using read = await beginExport(hostdir, request.snapshot);
  const { snapshot } = read;
  const chain = chainToExport(hostdir, snapshot);
  const parts = chain.flatMap((item, at) => exportPartsOf(item, at));
  await send(context, request, {
    chain: chain.map(({ name }) => name),
    parts,
    what: snapshotName(snapshot.name),
  });
}

/** Keeps a snapshot as it is while it is exported. @throws 66, 75 while it is being removed */
export async function beginExport(hostdir: string, name: string): Promise<ReadSnapshot> {
  try {
    return await beginReadingIfPossible(hostdir, name);
  } catch (error) {
    throw fileError("cannot export", error);
  }
}

/** The snapshot and its parents, parents first. @throws 74 if one is damaged */
export function chainToExport(hostdir: string, snapshot: Snapshot): Snapshot[] {
  if (snapshot.problem) throw snapshot.problem;
  const known = new Map(listSnapshots(hostdir).map((item) => [item.name, item]));
  const { parents } = followChain(snapshot, (parent) => known.get(parent));
  const damage = findDamage(snapshot, (parent) => known.get(parent));
  if (damage !== undefined)
    throw new VmError("io", `cannot export ${snapshot.name}: ${damage}`, {
      hint: `find the intact ones: ${commandLine("verify", "--all")}`,
    });
  return [snapshot, ...parents].toReversed();
}

const exportWorking = (context: Context, request: ExportRequest): Promise<void> =>
  withVm(context, "export", async (vm) => {
    const opened = await openWorking(vm);
    const name = nextSnapshotName(vm.hostdir);
    const isFirst = findBackups(vm.hostdir) === undefined;
    const backups = makeBackups(vm.hostdir);
    const staged = join(backups, `${PARTIAL}export`);
    try {
      const parts = await stageWorking(context, vm, opened, staged, name);
      await send(context, request, { chain: [name], parts, what: "the VM" });
    } finally {
      removeQuietly(staged);
      // Otherwise the directory would look like that of a VM with snapshots.
      if (isFirst) removeIfEmpty(backups);
    }
  });

function removeIfEmpty(backups: string): void {
  try {
    rmdirSync(backups);
  } catch {
    // Something else is in it.
  }
}

interface Sent {
  chain: string[];
  parts: ExportPart[];
  what: string;
}

async function send(context: Context, request: ExportRequest, { chain, parts, what }: Sent): Promise<void> {
  const started = performance.now();
  const index = await formatIndexOf(context, chain, parts);
  const path = request.output === undefined ? undefined : resolve(context.cwd, request.output);
  const output = openExportOutput(path);
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const meter = context.meter("export", total);
  using _step = beginStep(() => "export");
  try {
    await new Writer(output, meter).run(index, parts);
    await output.commit();
  } catch (error) {
    // Another export of working disks differs in its manifest.
    if (request.snapshot === undefined) output.discard();
    throw fileError("cannot export", error, "free some space and run the command again");
  } finally {
    meter.finish();
    output.close();
  }
  const where = path === undefined ? "" : ` to ${path}`;
  log.success(
    `exported ${what}${where}: ${formatSize(total)}, ${formatDuration((performance.now() - started) / 1000)}`,
  );
}

async function formatIndexOf(
  context: Context,
  chain: string[],
  parts: readonly ExportPart[],
): Promise<string> {
  const vm = await openVm(context);
  const { uuid } = readIdentity(vm.hostdir);
  const index: Index = {
    version: 1,
    tool: `vm ${context.version}`,
    guest: vm.settings.GUESTNAME || hostname(),
    ...(uuid !== undefined && { vm: uuid }),
    chain,
    files: parts.map(({ snapshot, name, bytes, sha256: sum }) => ({
      snapshot,
      name,
      bytes,
      ...(sum !== undefined && { sha256: sum }),
    })),
  };
  return formatIndex(index);
}

/** Writes an archive, or what an earlier attempt has not written of it. */
class Writer {
  /** Of the archive. */
  #at = 0;
  #done = 0;
  readonly #sums = new Map<string, string>();

  constructor(
    readonly output: ExportOutput,
    readonly meter: Meter,
  ) {}

  async run(index: string, parts: readonly ExportPart[]): Promise<void> {
    const kept = this.#findKept(index, parts);
    this.output.truncate(kept);
    if (kept > 0) log.info(`continuing an interrupted export: ${formatSize(kept)} are there already`);
    await this.#small(INDEX, Buffer.from(index), kept);
    for (const part of parts) await this.#part(part, kept);
    const lines = [...this.#sums].map(([name, sum]) => formatSumLine({ name, sum }));
    await this.#small(TRAILER, Buffer.from(lines.join("")), 0);
    await this.output.write(TAR_END);
  }

  /**
   * How many bytes of an earlier attempt can be kept: each member was synced before the header of the next one was
   * written, and the index has the lengths and checksums of all.
   */
  #findKept(index: string, parts: readonly ExportPart[]): number {
    const has = (at: number, bytes: Buffer): boolean => this.output.read(at, bytes.length).equals(bytes);
    const head = Buffer.from(index);
    if (this.output.earlier === 0 || !has(0, memberHeader(INDEX, head.length))) return 0;
    if (!has(memberHeader(INDEX, 0).length, head)) return 0;
    let kept = 0;
    let at = tarLength(head.length);
    for (const part of parts) {
      const header = memberHeader(memberName(part), part.bytes);
      if (part.sha256 === undefined || !has(at, header)) break;
      kept = at;
      at += tarLength(part.bytes);
    }
    return kept;
  }

  async #small(name: string, content: Buffer, kept: number): Promise<void> {
    this.#sums.set(name, sha256(content));
    if (this.#at >= kept) {
      await this.output.write(memberHeader(name, content.length));
      await this.output.write(content);
      await this.output.write(Buffer.alloc(tarPadding(content.length)));
    }
    this.#at += tarLength(content.length);
  }

  async #part(part: ExportPart, kept: number): Promise<void> {
    const { bytes, path, content } = part;
    const name = memberName(part);
    if (this.#at < kept) {
      this.#sums.set(name, part.sha256!);
      this.#at += tarLength(bytes);
    } else if (content) {
      await this.#small(name, content(this.#sums), kept);
    } else {
      await this.output.sync();
      await this.output.write(memberHeader(name, bytes));
      this.#sums.set(name, await this.#copy(part, path!));
      await this.output.write(Buffer.alloc(tarPadding(bytes)));
      this.#at += tarLength(bytes);
    }
    this.#done += bytes;
    this.meter.update(this.#done);
  }

  /** Copies and checks at the same time: the second reader finds the data in the page cache. */
  async #copy({ name, bytes, sha256: known }: ExportPart, path: string): Promise<string> {
    const fd = openForReading(path);
    const stop = new AbortController();
    const summing = computeSum(path, bytes, { signal: stop.signal });
    summing.catch(() => {});
    try {
      if (fstatSync(fd).size !== bytes) throw changed(path);
      const job = { what: "cannot export", from: fd, to: this.output.fd, bytes };
      const follow = (done: number): void => this.meter.update(this.#done + Math.min(done, bytes));
      await this.output.explain(copyBytes(job, follow));
      const sum = await summing;
      if (sum === undefined || fstatSync(fd).size !== bytes) throw changed(path);
      if (known === undefined || sum === known) return sum;
      throw new VmError("io", `cannot export ${path}: its checksum is wrong`, {
        hint: isStateName(name) ? undefined : `find the intact snapshots: ${commandLine("verify", "--all")}`,
      });
    } catch (error) {
      stop.abort();
      await summing.catch(() => {});
      throw error;
    } finally {
      closeSync(fd);
    }
  }
}

const changed = (path: string): VmError =>
  new VmError("io", `cannot export ${path}: it changed meanwhile`, { hint: "run the command again" });
