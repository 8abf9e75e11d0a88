import { closeSync, rmSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { sha256 } from "../../lib/crypto.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { openForReading, readSmall } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { buildTarHeader, TAR_END, tarPadding } from "../../lib/tar.ts";
import { plain } from "../../lib/text.ts";
import { formatDuration } from "../../lib/time.ts";
import { buildDefaults } from "../../config/defaults.ts";
import { parseSetting, parseSettings, type Settings } from "../../config/schema.ts";
import { networkWord } from "../../machine/network.ts";
import type { ReadImage } from "../../machine/types.ts";
import { copyBytes, requireCopier } from "../../process/copy-bytes.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { refuseExternalReference } from "../../qemu/image-header.ts";
import { exportImage, measureImage } from "../../qemu/img.ts";
import { computeSum } from "../../store/checksums.ts";
import { fileError, requireSpace } from "../../store/files.ts";
import { unpackFiles } from "../../store/gz.ts";
import { readValues } from "../../store/guest-env.ts";
import { HOST, isDiskName } from "../../store/layout.ts";
import { requireIntact } from "../../store/snapshot-intact.ts";
import { makeTemporary } from "../../store/temporary.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import type { Context } from "../../vm/context.ts";
import { openVm, type Vm } from "../../vm/find.ts";
import { readIdentity } from "../../vm/identity.ts";
import { nicsOf } from "../../vm/nics.ts";
import { withVm } from "../../vm/open.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { listImages } from "../restore-images.ts";
import { listStored } from "../restore.ts";
import { beginExport, chainToExport, type ExportRequest } from "./export.ts";
import { buildOvf, type OvfDisk } from "./ovf.ts";
import { openExportOutput, type ExportOutput } from "./output.ts";
import { openWorking } from "./working-parts.ts";

/** A disk to convert. */
interface OvaSource {
  /** `disk-0.img` */
  name: string;
  image: ReadImage;
  base: ReadImage | undefined;
}

/**
 * Writes a VM as OVA: descriptor, manifest, and disks as streamOptimized vmdk, for other programs. The VM is not locked
 * for a snapshot.
 * @throws as `exportVm`
 */
export async function exportOva(context: Context, request: ExportRequest): Promise<void> {
  requireCopier();
  if (request.snapshot === undefined)
    return withVm(context, "export", async (vm) => {
      const { sources } = await openWorking(vm);
      const disks = sources
        .filter(({ disk }) => disk)
        .map(({ name, path, base }) => ({ name, image: { format: "qcow2" as const, path }, base }));
      await sendOva(context, vm, request, vm.settings, async () => disks);
    });
  const vm = await openVm(context);
  requireOwn(context, vm.hostdir, "export");
  using read = await beginExport(vm.hostdir, request.snapshot);
  const { snapshot } = read;
  await sendOva(context, vm, request, settingsOf(vm, snapshot), (staged) =>
    listOvaDisks(context, vm, snapshot, staged),
  );
}

/** @param list the disks, unpacked into a directory if need be */
async function sendOva(
  context: Context,
  vm: Vm,
  { snapshot, output: file }: ExportRequest,
  settings: Settings,
  list: (staged: string) => Promise<OvaSource[]>,
): Promise<void> {
  const path = file === undefined ? undefined : resolve(context.cwd, file);
  const output = openExportOutput(path);
  try {
    using temporary = makeTemporary(vm.hostdir, context.tmpdir);
    const started = performance.now();
    output.truncate(0);
    const bytes = await writeOva(context, vm, settings, await list(temporary.dir), temporary.dir, output);
    await output.commit();
    log.success(
      `exported ${snapshot ?? "the VM"}${path === undefined ? "" : ` to ${path}`}: ${formatSize(bytes)}, ${formatDuration((performance.now() - started) / 1000)}`,
    );
  } catch (error) {
    output.discard();
    throw fileError("cannot export", error);
  } finally {
    output.close();
  }
}

/** The name of the VM as that of files; other programs have their own rules. */
const fileStem = (name: string): string =>
  name
    .replaceAll(/[^A-Za-z0-9._-]/g, "_")
    .replace(/^[.-]/, "_")
    .slice(0, 60) || "vm";

async function writeOva(
  context: Context,
  { hostdir }: Vm,
  settings: Settings,
  sources: readonly OvaSource[],
  staged: string,
  output: ExportOutput,
): Promise<number> {
  if (sources.length === 0)
    throw new VmError("config", "cannot export the VM as OVA: it has no disks of its own", {
      hint: `export it for this program: ${commandLine("export", "-o", "FILE")}`,
    });
  const stem = fileStem(settings.GUESTNAME);
  const disks: OvfDisk[] = [];
  for (const { name, image, base } of sources) {
    const file = `${stem}-disk${disks.length + 1}.vmdk`;
    const { virtualBytes, neededBytes } = await measureImage(image, base);
    requireSpace(staged, neededBytes, "export the VM", "tmpdir");
    const meter = context.meter(`convert ${name}`, virtualBytes);
    const follow = (part: number): void => meter.update(part * virtualBytes);
    await exportImage(image, join(staged, file), follow, base).finally(() => meter.finish());
    throwIfInterrupted();
    const bus = settings.IMAGES.find(({ path }) => path === name)?.bus ?? "AHCI";
    disks.push({ file, fileBytes: statSync(join(staged, file)).size, virtualBytes, bus });
  }
  reportLeftOut(context, settings);
  const ovf = buildOvf({
    name: plain(settings.GUESTNAME),
    processors: settings.SOCKETS * settings.CORES,
    memoryMiB: settings.MEMORY,
    efi: settings.UEFI,
    secureBoot: settings.SECURE_BOOT,
    nics: nicsOf(settings).map(({ mac }) => mac),
    disks,
    arch: settings.QEMUARCH,
    uuid: readIdentity(hostdir).uuid,
  });
  return writeArchive(context, output, staged, stem, ovf, disks);
}

/** What the user has configured, and no OVA can hold. */
function reportLeftOut(context: Context, settings: Settings): void {
  const { TPM, SHARES, IMAGES, UEFI } = settings;
  const byDefault = parseSetting("SHARES", buildDefaults(context).SHARES);
  const usual = new Set(
    ("value" in byDefault ? (byDefault.value as unknown[]) : []).map((one) => JSON.stringify(one)),
  );
  const shares = SHARES.filter((share) => !usual.has(JSON.stringify(share))).map(({ tag }) => tag);
  const networks = nicsOf(settings).flatMap(({ network }) =>
    network.kind === "user" ? [] : [networkWord(network)],
  );
  const left = [
    ...(TPM === "" ? [] : ["the TPM and its state"]),
    ...(UEFI ? ["UEFI variables (boot entries)"] : []),
    ...(shares.length > 0 ? [`shared folders (${shares.join(", ")})`] : []),
    ...(networks.length > 0 ? [`networks of cards (${networks.join(", ")})`] : []),
    ...IMAGES.filter(({ path }) => !isDiskName(path)).map(({ path }) => path),
  ];
  if (left.length > 0) log.warn(`not in the OVA: ${left.join(", ")}`);
}

function settingsOf({ raw }: Vm, { dir }: Snapshot): Settings {
  const values = readValues(readSmall(join(dir, HOST.guestEnv)) ?? "") ?? {};
  return parseSettings({
    ...raw,
    ...Object.fromEntries(Object.entries(values).filter(([key]) => key in raw)),
  });
}

async function listOvaDisks(
  context: Context,
  { hostdir }: Vm,
  snapshot: Snapshot,
  staged: string,
): Promise<OvaSource[]> {
  await requireIntact(chainToExport(hostdir, snapshot), {
    cannot: "cannot export",
    hint: `find the intact ones: ${commandLine("verify", "--all")}`,
  });
  const jobs = listStored(snapshot).filter(({ name }) => isDiskName(name));
  const needed = jobs.reduce((sum, job) => sum + job.neededBytes, 0);
  requireSpace(staged, needed, "export the VM", "tmpdir");
  const meter = context.meter(
    "decompress the disks",
    jobs.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  const unpacked = jobs.map((job) => ({ ...job, to: join(staged, job.name) }));
  await unpackFiles(unpacked, (done) => meter.update(done)).finally(() => meter.finish());
  for (const { to, from } of unpacked) refuseExternalReference(to, from);
  const images = listImages(hostdir, snapshot);
  return [
    ...unpacked.map(({ name, to }) => ({
      name,
      image: { format: "qcow2" as const, path: to },
      base: undefined,
    })),
    ...images.map(({ name, image: { base, ...image } }) => ({ name, image, base })),
  ].toSorted((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** In the order of the specification: descriptor, manifest, files. @returns the length of the disks */
async function writeArchive(
  context: Context,
  output: ExportOutput,
  staged: string,
  stem: string,
  ovf: string,
  disks: readonly OvfDisk[],
): Promise<number> {
  const seconds = Math.floor(Date.now() / 1000);
  const sums = [`SHA256(${stem}.ovf)= ${sha256(ovf)}\n`];
  for (const { file } of disks) sums.push(`SHA256(${file})= ${await computeSum(join(staged, file))}\n`);
  const small = async (name: string, text: string): Promise<void> => {
    const content = Buffer.from(text);
    await output.write(buildTarHeader(name, content.length, seconds));
    await output.write(Buffer.concat([content, Buffer.alloc(tarPadding(content.length))]));
  };
  await small(`${stem}.ovf`, ovf);
  await small(`${stem}.mf`, sums.join(""));
  const total = disks.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
  const meter = context.meter("export", total);
  let done = 0;
  try {
    for (const { file, fileBytes } of disks) {
      await output.write(buildTarHeader(file, fileBytes, seconds));
      const from = openForReading(join(staged, file));
      try {
        await output.explain(
          copyBytes({ what: "cannot export", from, to: output.fd, bytes: fileBytes }, (part) =>
            meter.update(done + part),
          ),
        );
      } finally {
        closeSync(from);
      }
      await output.write(Buffer.alloc(tarPadding(fileBytes)));
      done += fileBytes;
      rmSync(join(staged, file));
    }
  } finally {
    meter.finish();
  }
  await output.write(TAR_END);
  return total;
}
