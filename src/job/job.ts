import { confineBy } from "../vm/jail.ts";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { BashVariables } from "../config/bash.ts";
import { EXIT, reasonOf, VmError } from "../lib/errors.ts";
import { log, warnOnce } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { callerUmask } from "../process/umask.ts";
import { probeQemu } from "../qemu/probe.ts";
import { findJob, type Job } from "../rescue/find-job.ts";
import { unpackLibexec } from "../rescue/unpack-libexec.ts";
import { restoreMappedFiles } from "../rescue/mapped-files.ts";
import { remove } from "../store/remove.ts";
import { lstatOf, readSmallBytes } from "../lib/read-file.ts";
import { fileError, replaceVolatile } from "../store/files.ts";
import { recordEvent } from "../store/history.ts";
import { claimFiles } from "../store/claim.ts";
import { JOB, WORK } from "../store/layout.ts";
import { JOB_NAMES } from "../store/working-names.ts";
import type { Context } from "../vm/context.ts";
import { requireFreeForwards } from "../vm/display.ts";
import { findFirmwareFor } from "../vm/firmware.ts";
import { keepFormats } from "../vm/image-formats.ts";
import { Media } from "../vm/media.ts";
import { refuseRunning, refuseSuspended } from "../vm/in-use.ts";
import { requireWork, type Vm } from "../vm/find.ts";
import { withWholeVm } from "../vm/open.ts";
import { refuseTemplate } from "../vm/template.ts";
import { type Workdir } from "../store/workdir.ts";
import { AUTO_RESCUE, findRescue, resolveRescueMachine } from "./rescue-machine.ts";
import { JobLogWriter } from "./output.ts";
import { runRescue } from "./run.ts";

/** [compat] Mount point of the share `out` in the rescue. */
const OUTDIR = "/tmp/.out";

/** A job failed; this program exits with its status. */
class JobError extends VmError {
  constructor(
    message: string,
    override readonly exitCode: number,
    hint: string,
  ) {
    super("other", message, { hint });
  }
}

/** The VM with the name of its rescue; a missing default one is built. */
export const nameRescue = async (context: Context, vm: Vm): Promise<Vm> =>
  vm.settings.RESCUE === AUTO_RESCUE ? (await import("./rescue.ts")).ensureRescue(context, vm) : vm;

/**
 * Checks that a VM has a rescue and its qemu, before anything is changed that needs a job afterwards.
 * @throws 66 without a rescue, 69 without qemu
 */
export async function requireRescue(context: Context, found: Vm): Promise<void> {
  const vm = await nameRescue(context, found);
  const { settings } = await findRescue(context, vm, new Media(context, vm));
  await probeQemu(ARCH[settings.QEMUARCH].binary, context.cacheDirectory);
}

/** [compat] Options for the guest do not reach the rescue. In a batch they may be meant for another command. */
function warnOfGuestOptions({ batch, options: { spelled = {} } }: Context): void {
  if (batch?.some((name) => name !== "job")) return;
  for (const name of ["SOCKETS", "CORES", "MEMORY", "SHARES"] as const)
    if (spelled[name] !== undefined)
      warnOnce(
        `${spelled[name]} has no effect on a job: set RESCUE_${name} in the guest.env of the rescue profile`,
      );
}

/**
 * Runs a job: `.pre` on the host, `.job` in the rescue with the guest's disks, `.post` on the host.
 * @param input files for the job, by name, besides those that `.pre` makes
 * @throws the job's own status if it fails; 124 on a time limit; 74 if the rescue exits without a status
 */
export async function jobVm(
  context: Context,
  name: string,
  input: Readonly<Record<string, string>> = {},
): Promise<void> {
  await withWholeVm(context, `run the job ${name}`, async (found) => {
    refuseTemplate(found, `run the job ${name}`);
    const work = requireWork(found, `run the job ${name}`);
    await refuseRunning(work, `run the job ${name}`);
    refuseSuspended(work, `run the job ${name}`);
    const vm = await nameRescue(context, found);
    const builtIn = vm.origins.LIBEXEC.kind === "default" && context.libexecInstalled !== true;
    using libexec = builtIn ? unpackLibexec(vm.settings.LIBEXEC, context.tmpdir) : undefined;
    const places = {
      hostdir: vm.hostdir,
      profiles: vm.settings.PROFILES,
      libexec: libexec?.path ?? vm.settings.LIBEXEC,
    };
    const job = findJob(name, places);
    const media = new Media(context, vm);
    // Missing files are reported before any hook runs.
    const rescue = await findRescue(context, vm, media);
    const capabilities = await probeQemu(ARCH[rescue.settings.QEMUARCH].binary, context.cacheDirectory);
    warnOfGuestOptions(context);
    if (process.getuid!() === 0) warnOnce("running as root: shares and jobs act with root's rights");
    claimFiles(work, JOB_NAMES, true);
    try {
      emptyShares(work);
      for (const [file, text] of Object.entries(input)) replaceVolatile(join(work.dir, WORK.in, file), text);
      const hooked = job.pre !== undefined || job.post !== undefined;
      const variables = hooked
        ? await hookVariables(context, { ...vm, raw: rescue.raw }, work, media, places.libexec)
        : {};
      const runHook = async (path: string): Promise<void> =>
        (await import("../rescue/hooks.ts")).runHook(path, vm.hostdir, variables, vm.userShell);
      if (job.pre !== undefined) await runHook(job.pre);
      throwIfInterrupted();
      stageScript(job, work);
      const machine = await resolveRescueMachine(context, vm, work, media, rescue, capabilities);
      keepFormats(vm, work, machine.disks);
      await requireFreeForwards(machine.nics.flatMap(({ forwards }) => forwards));
      const jobLog = new JobLogWriter();
      const record = (status: number, how?: string): void =>
        recordEvent(context, vm.hostdir, { event: "job", job: name, how, status });
      const started = { job: name, rescue, machine, capabilities, confine: confineBy(context, vm.settings) };
      const status = await runRescue(context, work, started, jobLog.write).catch((error: unknown) => {
        record(error instanceof VmError ? error.exitCode : EXIT.internal, reasonOf(error));
        throw error;
      });
      record(status);
      restoreOutput(work);
      if (status !== EXIT.ok)
        throw new JobError(
          `the job ${name} failed with status ${status}`,
          status,
          `see its log: ${join(work.dir, WORK.out, JOB.log)}`,
        );
      if (job.post !== undefined) await runHook(job.post);
      log.success(`the job ${name} succeeded`);
      if (jobLog.failure)
        throw new VmError("io", jobLog.failure.message, {
          hint: `see the job's log: ${join(work.dir, WORK.out, JOB.log)}`,
        });
    } finally {
      remove(join(work.dir, WORK.in));
    }
  });
}

function emptyShares(work: Workdir): void {
  for (const name of [WORK.in, WORK.out]) {
    const path = join(work.dir, name);
    remove(path);
    mkdirSync(path, { mode: 0o700 });
  }
}

/** [compat] `.post` finds the job's files in `.out`, with their modes and symlinks. */
function restoreOutput(work: Workdir): void {
  const out = join(work.dir, WORK.out);
  const outside = restoreMappedFiles(out, callerUmask(), OUTDIR, Object.values(JOB));
  if (outside.length === 0) return;
  const some = outside.slice(0, 3).map(plain).join(", ");
  const further = outside.length > 3 ? ` and ${outside.length - 3} more` : "";
  log.warn(
    `symlinks that point outside ${out} are kept as regular files with the target as content: ${some}${further}`,
  );
}

/** Copies the job to `.in`, unless `.pre` has put one there. */
function stageScript(job: Job, work: Workdir): void {
  const target = join(work.dir, WORK.in, JOB.script);
  if (lstatOf(target)) {
    chmodSync(target, 0o600);
    return;
  }
  try {
    const script = readSmallBytes(job.script);
    if (script) return replaceVolatile(target, script);
  } catch (error) {
    throw fileError(`cannot read the job ${job.script}`, error);
  }
  throw new VmError("noInput", `cannot read the job ${job.script}: it has been removed`);
}

/** [compat] Shell variables of the hooks: every setting, and facts of this VM. */
async function hookVariables(
  context: Context,
  vm: Vm,
  work: Workdir,
  media: Media,
  libexec: string,
): Promise<BashVariables> {
  const { settings, raw, origins } = vm;
  const paths = [...settings.IMAGES, ...settings.SHARES, ...settings.RESCUE_SHARES].map(({ path }) => path);
  const MEDIA = await media.root(paths);
  const typed = (name: "QEMUARCH" | "UEFI"): string =>
    origins[name].kind === "option" ? [raw[name]].flat()[0]! : "";
  return {
    ...raw,
    // The values in force, not the text of a file.
    QEMUARCH: settings.QEMUARCH,
    RESCUE: settings.RESCUE,
    PROG: context.prog,
    HOSTDIR: vm.hostdir,
    WORKDIR: work.dir,
    LIBEXEC: libexec,
    PROFILES: settings.PROFILES,
    // If unknown, the value of the environment or vm.conf remains.
    ...(MEDIA !== undefined && { MEDIA }),
    ...firmwareVariables(vm, work),
    ARG_ARCH: typed("QEMUARCH"),
    ARG_UEFI: typed("UEFI"),
    ARG_IMAGES: context.options.additions.IMAGES ?? [],
  };
}

/** OVMF's files for hooks. A missing firmware is not an error here: most hooks do not use it. */
function firmwareVariables(vm: Vm, work: Workdir): BashVariables {
  try {
    const { code, varsTemplate } = findFirmwareFor(vm, work);
    return { OVMF_CODE: code.path, OVMF_VARS: varsTemplate.path };
  } catch {
    return { OVMF_CODE: vm.settings.OVMF_CODE, OVMF_VARS: vm.settings.OVMF_VARS };
  }
}
