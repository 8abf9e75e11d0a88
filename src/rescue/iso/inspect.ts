import { constants, mkdir, open, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { hasErrno, reasonOf, VmError } from "../../lib/errors.ts";
import { parseArch } from "../../machine/arch.ts";
import type { Arch } from "../../machine/types.ts";
import { exec, requireProgram } from "../../process/exec.ts";

/** Facts of an ALT Rescue ISO. */
export interface RescueIso {
  arch: Arch;
  /** First line of `.disk/info`. */
  info: string;
  /** Boot menus: absolute path on the ISO → text. */
  menus: Map<string, string>;
  /** Volume date, `YYYYMMDDhhmmsscc`, which blkid and grub use as UUID of the filesystem. */
  volumeDate: string | undefined;
}

/**
 * Common arguments of xorriso: no user settings, no patterns in names, exit at the first failure, and no notes or
 * progress, which would displace the error in the message.
 */
export function xorriso(): string[] {
  requireProgram("xorriso");
  const words =
    "xorriso -no_rc -abort_on FAILURE -report_about WARNING -iso_rr_pattern off -disk_pattern off";
  return words.split(" ");
}

/** Prefix that makes xorriso read a name as a file, not a device. */
export const asFile = (path: string): string => `stdio:${resolve(path)}`;

/** The `'quoted'` names that xorriso's `-find` prints, one a line; a quote within is `'"'"'`. */
export function parseFound(text: string): string[] {
  return [...text.matchAll(/^'((?:[^']|'"'"')*)'$/gm)].map((match) => match[1]!.replaceAll(`'"'"'`, "'"));
}

/** The volume date of `-pvd_info`: modification time, as in blkid, or creation time. */
export function parseVolumeDate(text: string): string | undefined {
  const dates = ["Modif", "Creation"].map(
    (name) => new RegExp(String.raw`^${name}\S* Time\s*:\s*(\d{16})`, "m").exec(text)?.[1],
  );
  return dates.find((date) => date !== undefined && !/^0+$/.test(date));
}

function notRescue(source: string, why: string): VmError {
  return new VmError("io", `cannot use ${source} as an ALT Rescue ISO: ${why}`, {
    hint: "use an ISO such as alt-p10-rescue-latest-x86_64.iso, and verify its checksum",
  });
}

/** The identifier of an ISO 9660 volume is in sector 16 (ECMA-119, 8.1.2). */
async function requireIso(source: string): Promise<void> {
  let identifier: string;
  try {
    // Without blocking on a named pipe.
    const file = await open(source, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (!(await file.stat()).isFile())
        throw new VmError("noInput", `${source} is not a regular file`, { hint: "give the ISO file itself" });
      const { buffer, bytesRead } = await file.read(Buffer.alloc(5), 0, 5, 16 * 2048 + 1);
      identifier = buffer.toString("latin1", 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof VmError) throw error;
    throw new VmError(
      hasErrno(error, "ENOENT") ? "noInput" : "io",
      `cannot read ${source}: ${reasonOf(error)}`,
      {
        hint: "give an ALT Rescue ISO",
        cause: error,
      },
    );
  }
  if (identifier !== "CD001") throw notRescue(source, "it has no ISO 9660 filesystem");
}

/** Maximum size of a boot menu. */
const TEXT_LIMIT_BYTES = 1 << 20;

/** Reads text as latin1, so that writing it back preserves all bytes. */
async function readText(path: string): Promise<string> {
  const { size } = await stat(path);
  return size > TEXT_LIMIT_BYTES ? "" : readFile(path, "latin1");
}

/**
 * Reads an ALT Rescue ISO.
 * @param scratch private directory for extracted files
 * @throws VmError if it is not one, or xorriso is missing or cannot read it
 */
export async function inspectIso(source: string, scratch: string): Promise<RescueIso> {
  await requireIso(source);
  const opened = [...xorriso(), "-indev", asFile(source)];
  const what = `cannot read ${source}`;
  const listing = await exec([...opened, "-pvd_info", "-find", "/", "-type", "f"], { what });
  const files = new Set(parseFound(listing.stdout));
  for (const name of ["/.disk/arch", "/.disk/info"])
    if (!files.has(name)) throw notRescue(source, `it has no ${name.slice(1)}`);
  if (!files.has("/rescue") && !files.has("/live")) throw notRescue(source, "it has no rescue or live image");
  const menus = [...files].filter((name) => /\.cfg$/i.test(name));
  const wanted = ["/.disk/arch", "/.disk/info", ...menus];
  const directory = join(scratch, "read");
  await mkdir(directory, { mode: 0o700 });
  const copies = wanted.map((name, index) => [name, join(directory, String(index))] as const);
  const extract = copies.flatMap(([name, copy]) => ["-extract", name, copy]);
  await exec([...opened, "-osirrox", "on", ...extract], { what });
  const [arch = "", info = "", ...texts] = await Promise.all(copies.map(([, copy]) => readText(copy)));
  const known = parseArch(arch.trim());
  if (!known) throw notRescue(source, `its architecture "${arch.trim()}" is not x86_64 or i586`);
  return {
    arch: known,
    info: info.split("\n")[0]!.trim(),
    menus: new Map(menus.map((name, index) => [name, texts[index]!])),
    volumeDate: parseVolumeDate(listing.stdout),
  };
}
