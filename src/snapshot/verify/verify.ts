import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { isQuiet } from "../../lib/log.ts";
import { plain } from "../../lib/text.ts";
import { stageWork, type Stage } from "../../store/stage.ts";
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
 * Checks snapshots and their parents against their checksums and manifests. Under the VM's lock, so that nothing is pruned
 * meanwhile.
 * @throws 74 naming the damaged ones, 124 if they are intact but do not boot in time, 66 without any
 */
export async function verifySnapshots(context: Context, request: VerifyRequest): Promise<void> {
  // Only its owner may start a guest.
  if (request.boot) requireOwn(context, findHostdir(context), "boot a snapshot");
  await withVmToRead(context, "verify", async (vm) => {
    const { boot } = request;
    const known = new Map(listSnapshots(vm.hostdir).map((item) => [item.name, item]));
    const find = (name: string): Snapshot | undefined => known.get(name);
    const own = readIdentity(vm.hostdir);
    const chosen = choose(vm, known, request);
    // Parents first: their problems are problems of their children.
    const all = new Set(chosen.flatMap((item) => [item, ...followChain(item, find).parents].toReversed()));
    const reports = new Map<string, Report>();
    for (const snapshot of all) {
      const { problem, parents } = followChain(snapshot, find);
      using _step = beginStep(() => `verify ${plain(snapshot.name)}`);
      const report = await verifySnapshot(context, vm, snapshot, parents[0], request);
      const other = foreignUuid(own, snapshot.manifest?.vm);
      if (other !== undefined) report.notes.push(`it is of another VM (UUID ${other}, not ${own.uuid})`);
      const below = parents[0] && reports.get(parents[0].name);
      if (below?.ok === false) report.problems.unshift(`its parent ${below.name} is bad`);
      else if (problem !== undefined) report.problems.unshift(problem);
      report.ok = report.problems.length === 0;
      if (boot && report.ok && chosen.includes(snapshot))
        Object.assign(report, await bootSnapshot(context, vm, snapshot, boot, report.notes));
      reports.set(snapshot.name, report);
      if (!request.json && !(isQuiet() && report.ok)) context.print(formatReport(report));
    }
    if (request.json) context.print(toJson([...reports.values()]));
    throwIfBad([...reports.values()]);
  });
}

function choose(
  { hostdir }: Vm,
  known: ReadonlyMap<string, Snapshot>,
  { names, all }: VerifyRequest,
): Snapshot[] {
  if (all && known.size > 0) return [...known.values()];
  const wanted = names.length > 0 ? names : [undefined];
  return [...new Set(wanted.map((name) => known.get(findSnapshot(hostdir, name).name)!))];
}

async function verifySnapshot(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  parent: Snapshot | undefined,
  { deep }: VerifyRequest,
): Promise<Report> {
  let stage: Stage | undefined;
  const scratchDir = (): string => (stage ??= stageWork(vm.hostdir, context, { state: "none" })).dir;
  try {
    return await checkSnapshot(snapshot, parent, { deep, low: isUnattended(), scratchDir });
  } finally {
    stage?.abort();
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
