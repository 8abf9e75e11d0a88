import { closeSync, mkdirSync, renameSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { RawSettings } from "../../config/schema.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { lstatOf, openForReading } from "../../lib/read-file.ts";
import { isOwnName, plain, quoteLine } from "../../lib/text.ts";
import { aboutVm, programLine } from "../../lib/command-line.ts";
import { openBytes } from "../../process/byte-source.ts";
import { copyBytes, requireCopier } from "../../process/copy-bytes.ts";
import { processFailure, requireProgram, start } from "../../process/exec.ts";
import { pipe } from "../../process/libc.ts";
import { createFile, freeBytes, removeQuietly } from "../../store/files.ts";
import { HOST, PARTIAL } from "../../store/layout.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import {
  chooseDirectory,
  makeDestination,
  refuseTakenDirectory,
  resolveDestination,
} from "../../vm/destination.ts";
import { readVm } from "../../vm/find.ts";
import { findOther } from "../../vm/identity.ts";
import { withVm } from "../../vm/open.ts";
import { makeVm, type GivenDisk } from "../create.ts";
import { inspectSource } from "../from-image.ts";
import { readOvaHead, unpackOva } from "./archive.ts";
import type { OvfDescriptor, DescribedDisk } from "./descriptor.ts";

export interface OvaRequest {
  /** Path, as typed; absent: stdin. */
  file: string | undefined;
  /** Absent: that of `-d`, or one with the VM's name in the current directory. */
  directory: string | undefined;
  newIdentity: boolean;
}

/**
 * Creates a VM from an OVA of another program: processors, memory, firmware, network cards and disks.
 * @throws 66 without the file, 73 if DIR exists or without space, 74 if the OVA is damaged or has what no VM here can have
 */
export async function importOva(context: Context, request: OvaRequest): Promise<void> {
  requireCopier();
  const { file } = request;
  const path = file === undefined ? undefined : resolve(context.cwd, file);
  using source = openBytes(path, `read a file: ${programLine("import", "FILE.ova")}`);
  const head = await readOvaHead(source);
  const { descriptor } = head;
  const place = chooseDirectory(context, request, descriptor.name);
  const directory = resolveDestination("import", place, context.cwd, []);
  const withdraw = makeDestination("import", directory);
  const here: Context = { ...context, hostdir: directory };
  using _about = aboutVm(directory);
  try {
    await withVm(here, "import", async () => {
      refuseTakenDirectory("import", directory);
      const staged = join(directory, `${PARTIAL}import`);
      mkdirSync(staged, { mode: 0o700 });
      try {
        await unpackOva(context, source, staged, head);
        await makeFrom(here, directory, staged, descriptor, request.newIdentity);
      } finally {
        removeQuietly(staged);
      }
    });
  } catch (error) {
    if (!lstatOf(join(directory, HOST.workLink))) withdraw();
    throw error;
  }
}

/** The cards, with their MAC addresses unless the original is on this host. */
function networksFor(
  context: Context,
  directory: string,
  { nics, own: { uuid } }: OvfDescriptor,
  renews: boolean,
): RawSettings {
  const other = uuid === undefined ? undefined : findOther(context, directory, uuid);
  const keeps = !renews && other === undefined;
  if (other !== undefined && nics.some((mac) => mac !== undefined))
    log.info(`  it has new MAC addresses: the VM in ${other} has those of the OVA`);
  const words = nics.map((mac) => (keeps && mac !== undefined ? `user,mac=${mac}` : "user"));
  return {
    USENETDEV: words.length > 0 ? "1" : "",
    ...((words.length > 1 || words.some((word) => word !== "user")) && { NETWORKS: words }),
  };
}

async function makeFrom(
  context: Context,
  directory: string,
  staged: string,
  found: OvfDescriptor,
  renews: boolean,
): Promise<void> {
  const { processors, memoryMiB, efi, own, ignored } = found;
  const { options } = context;
  const settings = {
    ...(own.arch && { QEMUARCH: own.arch }),
    SOCKETS: "1",
    CORES: String(Math.max(1, processors)),
    MEMORY: `${memoryMiB}M`,
    UEFI: efi ? "1" : "",
    ...networksFor(context, directory, found, renews),
    ...options.settings,
  };
  const typed: Context = { ...context, options: { ...options, settings } };
  const disks: GivenDisk[] = [];
  for (const [index, disk] of found.disks.entries()) {
    disks.push(await openDisk(context, staged, disk));
    if (disk.otherController !== undefined)
      log.info(`  disk ${index} is on ${disk.bus}: its controller was ${plain(disk.otherController)}`);
  }
  const vm = await readVm(typed, directory, true);
  const usable = isOwnName(found.name) && plain(found.name) === found.name;
  const name = usable ? found.name : basename(directory);
  if (!usable) log.info(`  it is named ${name}: '${quoteLine(found.name)}' cannot be a VM's name`);
  if (ignored.length > 0) log.warn(`not taken over from the OVA: ${plain(ignored.join(", "))}`);
  const creation = { from: undefined, cloudInit: undefined, images: [] };
  await makeVm(typed, vm, name, "", creation, disks, () => `imported ${name} to ${directory}`);
}

async function openDisk(
  context: Context,
  staged: string,
  { file, gzip, virtualBytes, bus }: DescribedDisk,
): Promise<GivenDisk> {
  if (file === undefined) return { bus, sizeBytes: virtualBytes };
  const path = join(staged, file);
  if (gzip) await decompress(path, virtualBytes);
  const source = await inspectSource(context, { image: path, linked: false, sizeBytes: undefined });
  return { bus, sizeBytes: Math.max(source.virtualBytes, virtualBytes), source };
}

/** Metadata of an image, beyond what the disk has. */
const imageLimit = (virtualBytes: number): number => Math.ceil(virtualBytes * 1.1) + (64 << 20);

/** Replaces a compressed image. The disk's size limits what it may become. @throws 74 if it is damaged or larger */
async function decompress(path: string, virtualBytes: number): Promise<void> {
  requireProgram("pigz");
  const to = `${path}.image`;
  const limit = Math.min(imageLimit(virtualBytes), freeBytes(path));
  const [readEnd, writeEnd] = pipe();
  const from = openForReading(path);
  const target = createFile(to);
  try {
    const unpacking = start(["pigz", "-d", "-c"], { stdin: from, stdout: writeEnd });
    closeSync(writeEnd);
    const copying = copyBytes({
      what: `cannot decompress ${basename(path)}`,
      from: readEnd,
      to: target,
      bytes: limit + 1,
      file: true,
    });
    await copying.finally(() => closeSync(readEnd));
    const result = await unpacking.done;
    if (statSync(to).size > limit)
      throw new VmError(
        "io",
        `refusing the OVA: ${basename(path)} is larger than its disk when it is decompressed`,
      );
    if (result.status !== 0) throw processFailure(`${basename(path)} is damaged`, result);
  } finally {
    closeSync(from);
    closeSync(target);
  }
  remove(path);
  renameSync(to, path);
}
