/** One small fault that a unit test must see. */
export interface Mutant {
  /** Below src. */
  file: string;
  /** Occurs there exactly once. */
  from: string;
  to: string;
  /** Below test; behind a colon what the titles of its tests match. */
  test: string;
}

const mutant = (file: string, from: string, to: string, test: string): Mutant => ({ file, from, to, test });

/** Of different kinds, over all folders: comparisons, limits, calls left out, orders, rights, names, numbers. */
export const MUTANTS: readonly Mutant[] = [
  mutant("cli/batch.ts", "if (batch.length < 2 ||", "if (batch.length < 3 ||", "cli/batch.test.ts"),
  mutant("cli/getopt.ts", 'if (word === "--") break;', 'if (word === "--") continue;', "cli/getopt.test.ts"),
  mutant("cli/report.ts", "return EXIT.internal;", "return EXIT.io;", "cli/report.test.ts"),
  mutant(
    "commands/stop.ts",
    "findTypedLimit(context), args.force",
    "findTypedLimit(context), false",
    "commands/run.test.ts:by force",
  ),
  mutant("commands/list.ts", "names: quiet === true", "names: false", "commands/host.test.ts:of all VMs"),
  mutant(
    "job/run.ts",
    "(!clean && status === 0)",
    "(!clean && status !== 0)",
    "commands/job.test.ts:killed after a successful job",
  ),
  mutant(
    "job/run.ts",
    "if (stopped || idle) kill();",
    "if (stopped) kill();",
    "commands/job.test.ts:the time for",
  ),
  mutant(
    "job/run.ts",
    "updateMark(work.dir, { lastRun, interruptedJob, job: undefined });",
    "",
    "commands/job.test.ts:does not start",
  ),
  mutant(
    "job/job.ts",
    "if (job.post !== undefined) await",
    "if (job.pre !== undefined) await",
    "commands/job.test.ts:check.post",
  ),
  mutant(
    "job/saved-state.ts",
    "if (hasFailed(path)) return undefined;",
    "",
    "commands/job.test.ts:a saved state",
  ),
  mutant(
    "snapshot/make/plan.ts",
    "chainLength(parent, all, longest) < longest",
    "chainLength(parent, all, longest) <= longest",
    "commands/backup.test.ts:limits a chain",
  ),
  mutant(
    "snapshot/make/images.ts",
    "chmodSync(path, 0o400);",
    "",
    "commands/backup.test.ts:the first is full",
  ),
  mutant(
    "snapshot/make/images.ts",
    "isSnapshotBitmap(item) && item !== keep",
    "isSnapshotBitmap(item) && item === keep",
    "commands/backup.test.ts:removes unused bitmaps",
  ),
  mutant(
    "snapshot/remove.ts",
    "next) replaceSymlink(link, next.name);",
    "next) replaceSymlink(link, link);",
    "commands/snapshots.test.ts:removes unneeded ones",
  ),
  mutant(
    "snapshot/merge.ts",
    "await requireMergeable(all, name, children);",
    "",
    "commands/snapshots.test.ts:merge of a damaged",
  ),
  mutant(
    "snapshot/restore.ts",
    "carryIdentity(stage.dir, own, uuid ?? snapshot.manifest?.vm);",
    "",
    "commands/host.test.ts:is shown, renewed",
  ),
  mutant(
    "qmp/events.ts",
    'event === "VSERPORT_CHANGE"',
    'event === "VSERPORT"',
    "commands/snapshots.test.ts:its agent",
  ),
  mutant("snapshot/remote/restic.ts", "0o007", "0o070", "commands/snapshots.test.ts:push, list"),
  mutant(
    "snapshot/diff.ts",
    "fromBytes: before?.virtualBytes ?? null",
    "fromBytes: after?.virtualBytes ?? null",
    "commands/snapshots.test.ts:diff",
  ),
  mutant(
    "lifecycle/run.ts",
    "attempt === PORT_TRIES",
    "attempt > PORT_TRIES",
    "commands/run.test.ts:tries the next default port",
  ),
  mutant("lifecycle/run.ts", "chmodSync(script, 0o700);", "", "commands/run.test.ts:a script of its own"),
  mutant(
    "lifecycle/stop.ts",
    "if (fresh && !endedByGuest(end) && !force)",
    "if (!endedByGuest(end) && !force)",
    "commands/run.test.ts:a killed qemu once",
  ),
  mutant(
    "lifecycle/create.ts",
    'writeNew(join(stage.dir, WORK.firstTime), "");',
    "",
    "commands/create.test.ts:writes disks",
  ),
  mutant(
    "lifecycle/from-image.ts",
    "wanted < virtualBytes",
    "wanted > virtualBytes",
    "commands/create.test.ts:disk-size",
  ),
  mutant("lifecycle/wait.ts", 'startsWith("SSH-")', 'includes("")', "commands/run.test.ts:greeted by"),
  mutant(
    "guest/exec.ts",
    "exitcode & MAX_STATUS || EXIT.other",
    "exitcode & MAX_STATUS",
    "commands/guest.test.ts:32 bits",
  ),
  mutant(
    "guest/ssh.ts",
    '"StrictHostKeyChecking=accept-new"',
    '"StrictHostKeyChecking=no"',
    "guest/ssh.test.ts",
  ),
  mutant(
    "host/timer/timer.ts",
    'await changeTimer(system, "enable", "--now", timer.name);',
    "",
    "commands/host.test.ts:install and remove",
  ),
  mutant("host/doctor/host.ts", "free < bytes", "free > bytes", "commands/host.test.ts:doctor"),
  mutant(
    "host/notify.ts",
    'if (wanted === "" || ofVm === "")',
    'if (wanted === "")',
    "commands/host.test.ts:outcome of a backup",
  ),
  mutant(
    "vm/record-exit.ts",
    "if (endedByGuest(end)) remove(join(workdir, WORK.firstTime));",
    "",
    "commands/run.test.ts:qemu exits for",
  ),
  mutant(
    "vm/image-formats.ts",
    'if (known === "raw") {',
    'if (known === "qcow2") {',
    "commands/machine.test.ts:first use",
  ),
  mutant(
    "vm/display.ts",
    "SPICE_TICKETING && !SPICE_SOCKET",
    "SPICE_TICKETING && SPICE_SOCKET",
    "commands/machine.test.ts:SPICE_TICKETING",
  ),
  mutant("live/fleece.ts", '...(cont ? [["cont"] as const] : []),', "", "commands/backup.test.ts:running VM"),
  mutant(
    "live/clean-up.ts",
    'if (status === "paused") await qmp.execute("cont");',
    "",
    "commands/backup.test.ts:after a killed command",
  ),
  mutant(
    "live/block-jobs.ts",
    "if (failed) throw jobFailure(failed.error!);",
    "",
    "commands/backup.test.ts:at the target",
  ),
  mutant(
    "rescue/build/signature.ts",
    "cut > 0 && cut < size",
    "cut > size",
    "commands/rescue-build.test.ts:uses kernel",
  ),
  mutant(
    "store/retention.ts",
    "made.getTime() > now.getTime()",
    "made.getTime() > 0",
    "store/retention.test.ts",
  ),
  mutant("store/checksums.ts", "if (sum !== expected)", "if (sum === undefined)", "store/checksums.test.ts"),
  mutant("qemu/features.ts", "minor >= wantedMinor", "minor > wantedMinor", "qemu/features.test.ts"),
  mutant("qmp/protocol.ts", "this.#length + (end < 0 ?", "0 * (end < 0 ?", "qmp/protocol.test.ts"),
  mutant("config/merge.ts", "overlay(stronger, weaker)", "overlay(weaker, stronger)", "config/merge.test.ts"),
  mutant(
    "machine/macros.ts",
    "value + path.slice(name.length + 2)",
    "value + path.slice(name.length + 1)",
    "machine/macros.test.ts",
  ),
  mutant("process/holders.ts", "if (!comm.startsWith(name)) return [];", "", "process/holders.test.ts"),
  mutant("lib/size.ts", "if (value < 1023.5) break;", "if (value < 1024) break;", "lib/size.test.ts"),
];
