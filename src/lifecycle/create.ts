import { existsSync, mkdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { isBlank } from "../config/check-guest-env.ts";
import { buildDefaults } from "../config/defaults.ts";
import { namesKept, parseSetting, type SettingName } from "../config/schema.ts";
import { log } from "../lib/log.ts";
import { newUuid } from "../lib/uuid.ts";
import { formatImage, parseImage, parseImageFormat } from "../machine/parse.ts";
import { macroOf } from "../machine/macros.ts";
import { findFirmware } from "../qemu/firmware.ts";
import { MAX_VARS_BYTES } from "../qemu/uefi-variables.ts";
import { LAYOUTS, type DiskRequest } from "../machine/types.ts";
import { createImage } from "../qemu/new-image.ts";
import { lstatOf, readNamed, readSmall } from "../lib/read-file.ts";
import { fileError, listDirectory, requireSpace, syncFile, writeNew } from "../store/files.ts";
import { formatGuestEnv, type GuestEnv } from "../store/guest-env.ts";
import { refuseUnwritable } from "../vm/store-settings.ts";
import { diskName, HOST, isDiskName, WORK } from "../store/layout.ts";
import { notePlace } from "../store/places.ts";
import { stageWork } from "../store/stage.ts";
import { describeGone } from "../store/workdir.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { requireProgram } from "../process/exec.ts";
import type { Context, Options } from "../vm/context.ts";
import type { CreateOptions } from "./create-options.ts";
import { createDisk, inspectSource, planDisks, type ImageSource } from "./from-image.ts";
import { recordBackingFile } from "../vm/backing-file.ts";
import { findFormats, storableImage } from "../vm/image-formats.ts";
import { nicsOf } from "../vm/nics.ts";
import { Media } from "../vm/media.ts";
import { findHostdir, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { refuseImpossible } from "../vm/limits.ts";
import { firmwareChoice, refuseSecureBoot } from "../vm/firmware.ts";
import { resolveSmbios } from "../vm/machine.ts";
import { writeSeed } from "../vm/seed-volume.ts";
import { tpmDeviceOf } from "../vm/tpm.ts";
import { warnOfMissingPaths } from "./missing-paths.ts";
import { planSeed } from "./seed.ts";
import { listSnapshots } from "../store/snapshots.ts";
import { reportVolatile } from "../vm/volatile.ts";

/** Maximum size of a guest.env that a power cut can leave filled with zeroes. */
const MAX_BLANK_BYTES = 1 << 16;

/**
 * Creates a VM: disks, UEFI variables, settings.
 * @returns the options for later commands of the batch
 * @throws 73 if HOSTDIR contains a VM already, 66 if the ISO or the image does not exist
 */
export async function createVm(
  context: Context,
  guestName: string,
  iso: string | undefined,
  options: CreateOptions,
): Promise<{ options: Options }> {
  // An empty guest.env is refused as existing, not as incomplete.
  const path = join(findHostdir(context), HOST.guestEnv);
  const stats = lstatOf(path);
  const lenient = stats?.isFile() === true && stats.size <= MAX_BLANK_BYTES && isBlank(readSmall(path) ?? "");
  await withVm(context, "create", (vm) => makeVm(context, vm, guestName, iso, options), { lenient });
  return { options: withoutLists(context.options) };
}

/** A disk with its content; without `source`, an empty one. */
export interface GivenDisk extends DiskRequest {
  source?: ImageSource | undefined;
}

/**
 * The same under the VM's lock.
 * @param given the disks, instead of those of the settings and options
 * @param describe what was done, by the directory of the working files
 */
export async function makeVm(
  context: Context,
  vm: Vm,
  guestName: string,
  iso: string | undefined,
  options: CreateOptions,
  given?: readonly GivenDisk[],
  describe = (workdir: string): string => `created ${guestName} in ${workdir}`,
): Promise<void> {
  refuseExisting(context, vm, guestName);
  // An image needs no installer: ISO in a settings file is ignored.
  const cd = iso ?? (options.from ? "" : vm.settings.ISO);
  if (cd !== "") await new Media(context, vm).findIso(cd);
  requireProgram("qemu-img");
  const { settings } = vm;
  refuseSecureBoot(settings);
  tpmDeviceOf(settings);
  const firmware = settings.UEFI ? findFirmware(settings.QEMUARCH, firmwareChoice(settings)) : undefined;
  const source = options.from && (await inspectSource(context, options.from));
  const disks: readonly GivenDisk[] =
    given ??
    planDisks(vm, options, source).map((disk, index) => ({
      ...disk,
      source: index === 0 ? source : undefined,
    }));
  const copied = disks.flatMap((disk) => (disk.source && !disk.source.linked ? [disk.source] : []));
  resolveSmbios(settings);
  refuseImpossible(vm, disks);
  const guestEnv = guestEnvOf(context, vm, guestName, cd, disks, options);
  refuseUnwritable(guestEnv);
  // The CD was found.
  warnOfMissingPaths({ ...guestEnv, ISO: "" });
  const identified = { ...settings, MAC: "auto", UUID: guestEnv.UUID as string };
  const seed = options.cloudInit && planSeed(context, vm, guestName, options.cloudInit, nicsOf(identified));
  if (copied.length > 0)
    requireSpace(
      settings.INPLACE ? vm.hostdir : context.tmpdir,
      copied.reduce((sum, { neededBytes }) => sum + neededBytes, 0),
      `create ${guestName}`,
      settings.INPLACE ? "snapshots" : "tmpdir",
    );
  const stage = stageWork(vm.hostdir, settings.INPLACE ? "inplace" : context, vm.work);
  try {
    for (const [index, disk] of disks.entries()) {
      const path = join(stage.dir, diskName(index));
      if (disk.source) await createDisk(context, disk.source, path, disk.sizeBytes);
      else await createImage(path, { sizeBytes: disk.sizeBytes });
      throwIfInterrupted();
    }
    for (const [index, disk] of disks.entries())
      if (disk.source) await syncFile(join(stage.dir, diskName(index)));
    if (seed) await writeSeed(stage.dir, seed);
    if (firmware)
      writeNew(join(stage.dir, WORK.efivars), readNamed(firmware.varsTemplate.path, MAX_VARS_BYTES));
    writeNew(join(stage.dir, WORK.guestEnv), formatGuestEnv(guestEnv));
    writeNew(join(stage.dir, WORK.firstTime), "");
    for (const name of [WORK.in, WORK.out]) mkdirSync(join(stage.dir, name), { mode: 0o700 });
    throwIfInterrupted();
    const workdir = stage.commit(source?.linked ? { base: recordBackingFile(source.image) } : {});
    notePlace(context.cacheDirectory, guestEnv.UUID as string, vm.hostdir);
    log.success(describe(workdir));
    reportVolatile(vm.hostdir, { dir: workdir, inplace: settings.INPLACE });
    const temporary = context.options.additions.IMAGES ?? [];
    if (temporary.length > 0)
      log.info(
        "--image before create applies to this command line only; put it after create to keep the image",
      );
  } catch (error) {
    stage.abort();
    throw fileError(`cannot create ${guestName}`, error);
  }
}

/** Hint: create the VM in a directory beside this one, with the same options. */
function hintForOtherDirectory({ cwd }: Context, hostdir: string, guestName: string): string {
  const named = /^[A-Za-z0-9][\w.-]*$/.test(guestName) ? guestName : "NAME";
  const name = join(dirname(hostdir), named) === hostdir ? `${named}-2` : named;
  const place = shellQuote(relative(cwd, join(dirname(hostdir), name)));
  const again = hostdir === cwd ? "and run the command there" : `and run the command with -d ${place}`;
  return `create the VM in a directory of its own, ${again}: mkdir ${place}${hostdir === cwd ? ` && cd ${place}` : ""}`;
}

function refuseExisting(context: Context, { hostdir, work }: Vm, guestName: string): void {
  const exists = (what: string, hint: string): VmError =>
    new VmError("cannotCreate", `cannot create a VM in ${hostdir}: it contains ${what}`, {
      hint: `${hint}\n${hintForOtherDirectory(context, hostdir, guestName)}`,
    });
  if (work.state === "present")
    throw exists(`working files (${work.dir})`, `show the existing VM: ${commandLine("status")}`);
  if (listSnapshots(hostdir).length > 0)
    throw exists("snapshots", `restore the last one: ${commandLine("restore")}`);
  if (existsSync(join(hostdir, HOST.guestEnv)))
    throw exists(`a ${HOST.guestEnv}`, `move it away: mv ${shellQuote(join(hostdir, HOST.guestEnv))}{,.old}`);
  const disk = listDirectory(hostdir).find(isDiskName);
  if (disk) throw exists(`a disk (${disk})`, `adopt it: ${commandLine("adopt")}`);
  if (work.state === "gone") log.info(`${describeGone(work)}; the new VM replaces them`);
}

/**
 * guest.env contains these lists now: later commands of the batch must not add to them again.
 * [compat] Images of the command line are not in guest.env, and apply to the whole batch.
 */
function withoutLists(options: Options): Options {
  const {
    FORWARDS: _forwards,
    NETWORKS: _networks,
    SHARES: _shares,
    SMBIOS: _smbios,
    ...settings
  } = options.settings;
  const { IMAGES = [] } = options.additions;
  return { ...options, settings, additions: { IMAGES } };
}

function guestEnvOf(
  context: Context,
  vm: Vm,
  guestName: string,
  iso: string,
  disks: readonly DiskRequest[],
  options: CreateOptions,
): GuestEnv {
  const { raw, settings } = vm;
  const { images, formats } = imagesOf(context, vm, options);
  const scalar = (name: "MEMORY" | "CORES"): string => [raw[name]].flat()[0] ?? "";
  const changed = changedSettings(context, vm);
  const user = options.cloudInit?.user;
  return {
    GUESTNAME: guestName,
    QEMUARCH: settings.QEMUARCH,
    SOCKETS: String(settings.SOCKETS),
    CORES: scalar("CORES"),
    MEMORY: scalar("MEMORY"),
    UEFI: settings.UEFI ? "1" : "",
    // [compat] As on the command line: each run searches for it again.
    ISO: iso,
    KEEPCD: settings.KEEPCD ? "1" : "",
    FORWARDS: settings.FORWARDS.join(","),
    HOST: settings.HOST,
    PORT: settings.PORT === undefined ? "" : String(settings.PORT),
    USENETDEV: settings.USENETDEV ? "1" : "",
    SHARES: settings.SHARES.map(({ tag, writable, path }) => {
      const absolute = macroOf(path) ? path : resolve(context.cwd, path);
      return `${tag}:${writable ? "rw:" : ""}${absolute}`;
    }),
    // [compat] Without a format: users' hooks edit the text `AHCI=disk-0.img`.
    IMAGES: [...disks.map((disk, index) => `${disk.bus}=${diskName(index)}`), ...images],
    ...changed,
    ...(formats.length > 0 && { IMAGE_FORMATS: formats }),
    ...(user !== undefined && (user !== "root" || changed.SSH_USER !== undefined) && { SSH_USER: user }),
    LAYOUT: String(LAYOUTS.at(-1)),
    MAC: "auto",
    UUID: newUuid(),
  };
}

/** Settings of guest.env that differ from their defaults. */
function changedSettings(context: Context, { raw }: Vm): Partial<GuestEnv> {
  const defaults = buildDefaults(context);
  const isChanged = (name: SettingName): boolean =>
    JSON.stringify(parseSetting(name, raw[name])) !== JSON.stringify(parseSetting(name, defaults[name]));
  return Object.fromEntries(
    namesKept("if changed")
      .filter(isChanged)
      .map((name) => [name, raw[name]]),
  );
}

/**
 * Images to write to guest.env, and their formats: those of settings files, and `--image` after `create`. Relative paths
 * of the command line are completed: in guest.env they are relative to WORKDIR.
 */
function imagesOf(
  { cwd, options: { additions } }: Context,
  { raw, hostdir }: Vm,
  options: CreateOptions,
): { images: string[]; formats: string[] } {
  const given = [raw.IMAGES].flat().filter((image) => image !== "");
  const fromFiles = given.slice(0, given.length - (additions.IMAGES?.length ?? 0));
  const formats = findFormats(fromFiles.flatMap((image) => parseImage(image) ?? []));
  const typed = options.images.map((text) => {
    const image = parseImage(text)!;
    const path = resolve(cwd, image.path);
    if (macroOf(image.path) || !existsSync(path)) return text;
    const [found] = findFormats([{ ...image, path }]);
    const stored = storableImage(hostdir, image, path, parseImageFormat(found ?? "")?.format);
    if (found && stored.format === undefined) formats.push(found);
    return formatImage(stored);
  });
  return { images: [...fromFiles, ...typed], formats };
}
