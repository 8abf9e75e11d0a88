import { mkdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseSetting } from "../config/schema.ts";
import { parseAction } from "../lib/action.ts";
import { beginStep } from "../lib/activity.ts";
import { programLine, programName } from "../lib/command-line.ts";
import { usageError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { isOurDirectory } from "../lib/trust.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration } from "../lib/time.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { RESCUE_SCRIPTS, RUNNER } from "../rescue/assets.ts";
import { parseKernelArguments } from "../rescue/iso/recovery.ts";
import { COMPRESSIONS, RESCUE_ACTIONS, type Compression } from "../rescue/choices.ts";
import { remove } from "../store/remove.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { fileError, removeQuietly, writeNew } from "../store/files.ts";
import { PARTIAL, RESCUE } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { Media } from "../vm/media.ts";
import { openOwnVm, type Vm } from "../vm/find.ts";
import { measureRescue } from "./rescue-list.ts";
import { AUTO_RESCUE } from "./rescue-machine.ts";
import { keptSettings, lockProfiles, recoverProfile, replaceProfile } from "./rescue-profile.ts";

export interface BuildRequest {
  action: "build";
  iso: string | undefined;
  /** Directory of files for the CD. */
  recovery: string | undefined;
  /** Kernel arguments for the CD. */
  append: readonly string[];
  name: string | undefined;
  kernel: string | undefined;
  modules: string | undefined;
  root: string | undefined;
  compress: Compression;
  /** Do nothing if the profile exists. */
  unlessThere?: boolean;
}

/** @throws 64 for invalid values, or options that exclude each other */
export function parseRescueRequest(
  word: string,
  args: Record<string, unknown>,
): BuildRequest | { action: "list" } {
  const text = (name: string): string | undefined => args[name] as string | undefined;
  const given = ["iso", "recovery", "append", "name", "kernel", "modules", "root", "compress"].filter(
    (name) => text(name) !== undefined,
  );
  const empty = given.find((name) => text(name) === "");
  if (empty) throw usageError(`rescue: --${empty} has no value`, programLine("rescue", "-h"));
  const action = parseAction("rescue", word, RESCUE_ACTIONS);
  if (action === "list") {
    if (given.length > 0)
      throw usageError(
        `rescue list takes no --${given[0]}`,
        `use it with: ${programLine("rescue", "build")}`,
      );
    return { action };
  }
  const compress = COMPRESSIONS.find((one) => one === (text("compress") ?? "none"));
  if (!compress)
    throw usageError(
      `--compress: '${text("compress")}' is not allowed`,
      `allowed: ${COMPRESSIONS.join(" ")}`,
    );
  const own = ["kernel", "modules", "root", "compress"].find((name) => given.includes(name));
  if (text("iso") !== undefined && own)
    throw usageError(`--iso and --${own} exclude each other`, "omit one: a CD has its own kernel");
  const ofCd = ["recovery", "append"].find((one) => given.includes(one));
  if (text("iso") === undefined && ofCd)
    throw usageError(
      `--${ofCd} needs --iso`,
      "only a rescue CD has it: a rescue of this host's programs takes what a job brings",
    );
  const append = text("append") === undefined ? { words: [] } : parseKernelArguments(text("append")!);
  if ("allowed" in append)
    throw usageError(`--append: '${append.given}' is not allowed`, `allowed: ${append.allowed}`);
  const name = text("name");
  const parsed = name === undefined ? undefined : parseSetting("RESCUE", name);
  if (parsed && !("value" in parsed))
    throw usageError(`--name: '${name}' is not allowed`, `allowed: ${parsed.allowed}`);
  return {
    action,
    iso: text("iso"),
    recovery: text("recovery"),
    append: append.words,
    name,
    kernel: text("kernel"),
    modules: text("modules"),
    root: text("root"),
    compress,
  };
}

const chooseProfileName = ({ settings }: Vm): string =>
  settings.RESCUE === AUTO_RESCUE ? `rescue-${settings.QEMUARCH}` : settings.RESCUE;

/** Builds the default rescue if it is missing, for `--rescue=auto`. @returns the VM with RESCUE set */
export async function ensureRescue(context: Context, vm: Vm): Promise<Vm> {
  const name = chooseProfileName(vm);
  if (!lstatOf(join(vm.settings.PROFILES, name)))
    await buildRescue(context, {
      action: "build",
      name,
      iso: undefined,
      recovery: undefined,
      append: [],
      kernel: undefined,
      modules: undefined,
      root: undefined,
      compress: "none",
      unlessThere: true,
    });
  return { ...vm, settings: { ...vm.settings, RESCUE: name } };
}

/**
 * Builds a rescue profile, atomically. One of the same kind is replaced, and keeps its settings.
 * @throws 73 if another file or profile has the name
 */
export async function buildRescue(context: Context, request: BuildRequest): Promise<void> {
  const started = performance.now();
  const vm = await openOwnVm(context);
  const name = request.name ?? chooseProfileName(vm);
  const directory = join(vm.settings.PROFILES, name);
  const beside = join(vm.settings.PROFILES, `${PARTIAL}${name}`);
  const scratch = `${beside}.scratch`;
  const iso = request.iso === undefined ? undefined : await new Media(context, vm).findIso(request.iso);
  const recovery = request.recovery === undefined ? undefined : requireDirectory(context, request.recovery);
  const settings = iso === undefined ? ownSettings() : isoSettings(name);
  keptSettings(directory, settings);
  using _step = beginStep(() => `build the rescue ${name}`);
  try {
    if (statSync(vm.settings.PROFILES, { throwIfNoEntry: false })?.isDirectory() === false)
      throw new VmError(
        "cannotCreate",
        `cannot build the rescue ${name}: ${vm.settings.PROFILES} is not a directory`,
        { hint: "move that file, or set PROFILES to another directory" },
      );
    mkdirSync(vm.settings.PROFILES, { recursive: true, mode: 0o700 });
    if (!isOurDirectory(realPath(vm.settings.PROFILES)!))
      throw new VmError(
        "cannotCreate",
        `cannot build the rescue ${name}: other users can write to ${vm.settings.PROFILES}, or to a directory above it`,
        { hint: `set PROFILES to a directory of your own, in ~/.config/${programName()}.conf` },
      );
    using _lock = await lockProfiles(vm.settings.PROFILES, name);
    // Another process may have built it while this one waited.
    if (request.unlessThere && lstatOf(directory)) return;
    try {
      recoverProfile(vm.settings.PROFILES, name);
      for (const path of [beside, scratch]) {
        remove(path);
        mkdirSync(path, { mode: 0o700 });
      }
      if (iso !== undefined)
        await buildFromIso(beside, scratch, name, { source: iso, recovery, append: request.append });
      else await buildOwn(context, vm, beside, scratch, request);
      throwIfInterrupted();
      writeNew(join(beside, RESCUE.guestEnv), keptSettings(directory, settings) ?? settings);
      await replaceProfile(vm.settings.PROFILES, name, beside);
    } finally {
      removeQuietly(scratch);
      removeQuietly(beside);
    }
  } catch (error) {
    throw fileError(`cannot build the rescue ${name}`, error);
  }
  const seconds = (performance.now() - started) / 1000;
  log.success(
    `the rescue ${name} is in ${directory}: ${formatSize(measureRescue(directory))}, ${formatDuration(seconds)}`,
  );
}

async function buildFromIso(
  out: string,
  scratch: string,
  name: string,
  given: { source: string; recovery: string | undefined; append: readonly string[] },
): Promise<void> {
  const { repackIso } = await import("../rescue/iso/repack.ts");
  const target = join(out, `${name}.iso`);
  const asRoot = process.getuid!() === 0;
  const { by } = await repackIso({ ...given, target, autorun: RUNNER, scratch, asRoot });
  log.info(`repacked ${given.source} with ${by}`);
}

async function buildOwn(
  context: Context,
  { settings }: Vm,
  out: string,
  scratch: string,
  { kernel, modules, root, compress }: BuildRequest,
): Promise<void> {
  const { buildOwnRescue } = await import("../rescue/build/own.ts");
  const built = await buildOwnRescue({
    out,
    scratch,
    compress,
    scripts: RESCUE_SCRIPTS,
    arch: settings.QEMUARCH,
    ...(root !== undefined && { root: requireDirectory(context, root) }),
    ...(kernel !== undefined && { kernel: resolve(context.cwd, kernel) }),
    ...(modules !== undefined && { modules: resolve(context.cwd, modules) }),
  });
  log.info(`kernel ${built.kernelVersion}`);
  if (built.vmlinux === false) log.info("cannot uncompress the kernel: jobs start some seconds later");
  if (built.missing.length > 0)
    log.info(
      `missing from the rescue, because not ${root === undefined ? "installed" : `in ${root}`}: ${built.missing.join(", ")}`,
    );
}

function requireDirectory(context: Context, path: string): string {
  const directory = resolve(context.cwd, path);
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return directory;
  throw new VmError("noInput", `no such directory: ${directory}`);
}

const HEAD = "# Generated by vm rescue build. Other RESCUE_ settings may be added.\n";

const ownSettings = (): string =>
  `${HEAD}RESCUE_KERNEL="${RESCUE.kernel}"\nRESCUE_VMLINUX="${RESCUE.vmlinux}"\nRESCUE_INITRD="${RESCUE.initrd}"\n`;

const isoSettings = (name: string): string =>
  `${HEAD}RESCUE_ISO="${name.replaceAll(/[\\"$\x60]/g, String.raw`\$&`)}.iso"\n`;
