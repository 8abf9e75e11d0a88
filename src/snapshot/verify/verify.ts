import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { isQuiet } from "../../lib/log.ts";
import { plain } from "../../lib/text.ts";
import { fileError } from "../../store/files.ts";
import { beginReading, canLockSnapshots, type ReadSnapshot } from "../../store/reading.ts";
import { chainOf, findBeside } from "../../store/snapshot-intact.ts";
import { makeTemporary, type Temporary } from "../../store/temporary.ts";
import type { Context } from "../../vm/context.ts";
import { foreignUuid, readIdentity } from "../../vm/identity.ts";
import { findHostdir, type Vm } from "../../vm/find.ts";
import { withVmToRead } from "../../vm/open.ts";
import { requireOwn } from "../../vm/ownership.ts";
import {
  findSnapshot,
  listSnapshots,
  validateSnapshotReference,
  type Snapshot,
} from "../../store/snapshots.ts";
import { isUnattended } from "../../process/unattended.ts";
import { bootSnapshot, parseBootWait } from "./boot.ts";
import { followChain } from "../../store/snapshot-chain.ts";
import { formatReport, type BootWait, type Report } from "./report.ts";
import { checkSnapshot } from "./snapshot.ts";

export interface VerifyRequest {
  /** Empty: LAST. */
  names: string[];
  all: boolean;
  deep: boolean;
  json: boolean;
  boot: BootWait | undefined;
}

/** Parses the command's arguments. @throws 64 */
export function parseVerify(args: Record<string, unknown>): VerifyRequest {
  const names = [args.snapshot ?? []].flat() as string[];
  names.forEach(validateSnapshotReference);
  const all = args.all === true;
  if (args.remote === true && (all || names.length > 0 || args.boot === true || args.json === true))
    throw new VmError("usage", "verify: --remote takes only --deep and --quiet", {
      hint: `check the whole repository: ${commandLine("verify", "--remote")}`,
    });
  if (all && names.length > 0) throw new VmError("usage", "verify: either --all or names of snapshots");
  const wait = {
    pattern: args["boot-wait"] as string | undefined,
    timeout: args.timeout as string | undefined,
  };
  if (args.boot !== true && (wait.pattern ?? wait.timeout) !== undefined)
    throw new VmError("usage", "verify: --boot-wait and --timeout need --boot");
  const boot = args.boot === true ? parseBootWait(wait.pattern, wait.timeout) : undefined;
  return { names, all, deep: args.deep === true, json: args.json === true, boot };
}

/**
 * Checks snapshots and their parents against their checksums and manifests. Each is locked while it is read, so that it is
 * not pruned meanwhile; the VM only with `boot`, or where directories cannot be locked.
 * @throws 74 naming the damaged ones, 124 if they are intact but do not boot in time, 66 without any
 */
export async function verifySnapshots(context: Context, request: VerifyRequest): Promise<void> {
  const hostdir = findHostdir(context);
  // Only its owner may start a guest.
  if (request.boot) requireOwn(context, hostdir, "boot a snapshot");
  if (request.boot || !canLockSnapshots(hostdir))
    return withVmToRead(context, "verify", (vm) => verifyAll(context, hostdir, request, vm));
  try {
    await verifyAll(context, hostdir, request);
  } catch (error) {
    throw error instanceof Error && "errno" in error ? fileError("cannot verify", error) : error;
  }
}

/** @param vm under its lock; absent: the snapshots are locked */
async function verifyAll(context: Context, hostdir: string, request: VerifyRequest, vm?: Vm): Promise<void> {
  const find = findBeside(hostdir);
  const own = readIdentity(hostdir);
  const chosen = chooseNames(hostdir, request);
  // Parents first: their problems are problems of their children.
  const all = new Set(
    chosen.flatMap((name) =>
      chainOf(hostdir, findSnapshot(hostdir, name))
        .map((item) => item.name)
        .toReversed(),
    ),
  );
  const reports = new Map<string, Report>();
  for (const name of all) {
    using read = vm ? undefined : await keepToRead(hostdir, name, request);
    if (!vm && !read) continue;
    const snapshot = read?.snapshot ?? findSnapshot(hostdir, name);
    const { problem, parents } = followChain(snapshot, find);
    using _step = beginStep(() => `verify ${plain(name)}`);
    const report = await verifySnapshot(context, hostdir, snapshot, parents[0], request);
    const other = foreignUuid(own, snapshot.manifest?.vm);
    if (other !== undefined) report.notes.push(`it is of another VM (UUID ${other}, not ${own.uuid})`);
    const below = parents[0] && reports.get(parents[0].name);
    if (below?.ok === false) report.problems.unshift(`its parent ${below.name} is bad`);
    else if (problem !== undefined) report.problems.unshift(problem);
    report.ok = report.problems.length === 0;
    if (request.boot && vm && report.ok && chosen.includes(name))
      Object.assign(report, await bootSnapshot(context, vm, snapshot, request.boot, report.notes));
    reports.set(name, report);
    if (!request.json && !(isQuiet() && report.ok)) context.print(formatReport(report));
  }
  if (request.json) context.print(toJson([...reports.values()]));
  throwIfBad([...reports.values()]);
}

function chooseNames(hostdir: string, { names, all }: VerifyRequest): string[] {
  const known = all ? listSnapshots(hostdir).map(({ name }) => name) : [];
  if (known.length > 0) return known;
  const wanted = names.length > 0 ? names : [undefined];
  return [...new Set(wanted.map((name) => findSnapshot(hostdir, name).name))];
}

/** @returns undefined if it was removed since `--all` listed it */
async function keepToRead(
  hostdir: string,
  name: string,
  { all }: VerifyRequest,
): Promise<ReadSnapshot | undefined> {
  try {
    return await beginReading(hostdir, name);
  } catch (error) {
    if (all && error instanceof VmError && error.code === "noInput") return undefined;
    if (!(error instanceof Error && "errno" in error)) throw error;
    // Unreadable: the report says so.
    return { snapshot: findSnapshot(hostdir, name), [Symbol.dispose]: () => {} };
  }
}

async function verifySnapshot(
  context: Context,
  hostdir: string,
  snapshot: Snapshot,
  parent: Snapshot | undefined,
  { deep }: VerifyRequest,
): Promise<Report> {
  let scratch: Temporary | undefined;
  const scratchDir = (): string => (scratch ??= makeTemporary(hostdir, context.tmpdir)).dir;
  try {
    return await checkSnapshot(snapshot, parent, { deep, low: isUnattended(), scratchDir });
  } finally {
    scratch?.[Symbol.dispose]();
  }
}

function throwIfBad(reports: readonly Report[]): void {
  const bad = reports.filter((report) => !report.ok);
  if (bad.length === 0) return;
  const one = bad.length === 1;
  const late = bad.every((report) => report.late);
  const fault = late ? (one ? "does not boot in time" : "do not boot in time") : one ? "is bad" : "are bad";
  const names = bad.map(({ name }) => name).join(", ");
  throw new VmError(
    late ? "timeout" : "io",
    `${bad.length} of ${reports.length} snapshot${reports.length === 1 ? "" : "s"} ${fault}: ${names}`,
    {
      hint: late
        ? "increase --timeout, or give a pattern of its console output: --boot-wait"
        : "see the problems above; keep an older, good one, and create a new one",
    },
  );
}
