import { chmod, mkdir, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { noSpaceError, VmError } from "../../lib/errors.ts";
import { saysIsoTooLarge } from "../../lib/program-messages.ts";
import type { Arch } from "../../machine/types.ts";
import { exec, findProgram, processFailure } from "../../process/exec.ts";
import { asFile, inspectIso, type RescueIso, xorriso } from "./inspect.ts";
import { addKernelArguments, bootAtOnce, argumentName } from "./menu.ts";
import { AUTORUN, RUNNER_BESIDE, stageRecovery } from "./recovery.ts";
import { lstatOf } from "../../lib/read-file.ts";

/**
 * Kernel arguments: run `recovery/autorun` of the CD (in alt2deploy's syntax), use the serial console (the last console
 * is `/dev/console`), and reboot soon after a panic.
 */
export const RESCUE_ARGUMENTS = [
  "autorun=method:cdrom,label:,uuid:,directory:/recovery",
  "console=tty0",
  "console=ttyS0,115200",
  "panic=5",
] as const;

/** Directory on the ISO. */
const RECOVERY = "/recovery";

export interface RepackOptions {
  /** An ALT Rescue ISO. */
  source: string;
  /** The ISO to create; must not exist yet. */
  target: string;
  /** The script that the rescue runs. */
  autorun: string;
  /** Files for `/recovery` on the ISO; an `autorun` among them is run instead of the script. */
  recovery?: string | undefined;
  /** Further kernel arguments, which replace those of the same name. */
  append?: readonly string[];
  /** Private directory (0700) for temporary files; the caller removes it. */
  scratch: string;
  /** alt2deploy refuses to run as root. */
  asRoot: boolean;
}

export interface Repacked {
  by: "alt2deploy" | "xorriso";
  /** Architecture of the guests. */
  arch: Arch;
}

/** Changed menus: path on the ISO → new text. */
export function rewriteMenus(menus: RescueIso["menus"], append: readonly string[] = []): Map<string, string> {
  const theirs = new Set(append.map(argumentName));
  const args = [...RESCUE_ARGUMENTS.filter((argument) => !theirs.has(argumentName(argument))), ...append];
  const rewritten = [...menus].map(
    ([path, text]) => [path, bootAtOnce(addKernelArguments(text, args))] as const,
  );
  return new Map(rewritten.filter(([path, text]) => text !== menus.get(path)));
}

/** alt2deploy needs a directory with `autorun`, and a target with a directory part. */
async function byAlt2deploy({ source, target, autorun, scratch }: RepackOptions): Promise<void> {
  const stage = join(scratch, "stage");
  await mkdir(stage, { mode: 0o700 });
  await writeFile(join(stage, "autorun"), autorun);
  // Independent of the umask.
  await chmod(join(stage, "autorun"), 0o755);
  await exec(["alt2deploy", "-r", stage, "--", resolve(source), `./${basename(target)}`], {
    cwd: dirname(resolve(target)),
    what: `cannot repack ${source}`,
  });
}

/** Stages the files of `/recovery`. */
async function stageScripts({ recovery, autorun }: RepackOptions, stage: string): Promise<void> {
  if (recovery === undefined) await mkdir(stage, { mode: 0o700 });
  else stageRecovery(recovery, stage);
  if (lstatOf(join(stage, RUNNER_BESIDE)))
    throw new VmError("usage", `--recovery: ${recovery} has a file ${RUNNER_BESIDE}`, {
      hint: `rename it: that is the program's own script, beside an ${AUTORUN} of yours`,
    });
  const own = lstatOf(join(stage, AUTORUN)) !== undefined;
  if (own) await chmod(join(stage, AUTORUN), 0o755);
  const script = join(stage, own ? RUNNER_BESIDE : AUTORUN);
  await writeFile(script, autorun, { flag: "wx" });
  await chmod(script, 0o755);
}

/** Adds files to the ISO, with their modes. */
async function byXorriso(options: RepackOptions, iso: RescueIso): Promise<void> {
  const { source, target, scratch, append } = options;
  const menus = rewriteMenus(iso.menus, append);
  // An ISO made by this program before needs no change.
  const ready = [...iso.menus.values()].some((text) => text.includes(RESCUE_ARGUMENTS[0]));
  if (menus.size === 0 && !ready) {
    throw new VmError("io", `cannot repack ${source}: none of its boot menus boots a rescue`, {
      hint: "use an ALT Rescue ISO for x86_64 or i586",
    });
  }
  const directory = join(scratch, "write");
  const recovery = join(scratch, "recovery");
  await mkdir(directory, { mode: 0o700 });
  await stageScripts(options, recovery);
  const maps: string[] = ["-map", recovery, RECOVERY];
  for (const how of [
    ["-chown_r", "0"],
    ["-chgrp_r", "0"],
  ])
    maps.push(...how, RECOVERY, "--");
  for (const [index, [path, text]] of [...menus].entries()) {
    const copy = join(directory, String(index));
    await writeFile(copy, text, { mode: 0o600, encoding: "latin1" });
    maps.push("-map", copy, path, "-chown", "0", path, "--", "-chgrp", "0", path, "--");
    maps.push("-chmod", "0444", path, "--");
  }
  const argv = [...xorriso(), "-indev", asFile(source), "-outdev", asFile(target)];
  argv.push("-boot_image", "any", "replay");
  // The menus may search for the volume by its UUID, which is the date.
  if (iso.volumeDate) argv.push("-volume_date", "uuid", iso.volumeDate);
  argv.push(...maps, "-chmod", "0755", RECOVERY, "--", "-commit", "-end");
  const what = `cannot repack ${source}`;
  const result = await exec(argv, { what, anyStatus: true });
  if (result.status === 0) return;
  throw saysIsoTooLarge(result.stderr) ? noSpaceError(what) : processFailure(what, result);
}

/**
 * Creates an ISO that runs our script after booting by BIOS or UEFI, as the source does.
 * @throws VmError if the source is not an ALT Rescue ISO, a program is missing, or the disk is full (73); the target is
 *   removed then
 */
export async function repackIso(options: RepackOptions): Promise<Repacked> {
  const { source, target, scratch, asRoot, recovery, append = [] } = options;
  const iso = await inspectIso(source, scratch);
  // It drops modes of files, and takes no kernel arguments.
  const plain = recovery === undefined && append.length === 0;
  const by = plain && !asRoot && findProgram("alt2deploy") ? "alt2deploy" : "xorriso";
  try {
    await (by === "alt2deploy" ? byAlt2deploy(options) : byXorriso(options, iso));
    const made = await stat(target).catch(() => undefined);
    if (!made?.isFile() || made.size === 0)
      throw new VmError("io", `cannot create ${target}: ${by} wrote no such file`);
    await chmod(target, 0o600);
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
  return { by, arch: iso.arch };
}
