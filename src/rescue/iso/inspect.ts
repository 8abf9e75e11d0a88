import { constants, mkdir, open, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { hasErrno, reasonOf, VmError } from "../../lib/errors.ts";
import { parseArch } from "../../machine/arch.ts";
import type { Arch } from "../../machine/types.ts";
import { exec, requireProgram } from "../../process/exec.ts";

/** What an ALT Rescue ISO says of itself. */
export interface RescueIso {
  arch: Arch;
  /** First line of `.disk/info`. */
  info: string;
  /** Boot menus: absolute path on the ISO → text. */
  menus: Map<string, string>;
  /** Volume date, `YYYYMMDDhhmmsscc`: blkid and grub take it for the file system's UUID. */
  volumeDate: string | undefined;
}

/**
 * How every xorriso starts: no settings of the user's, no patterns in names, the first failure ends it,
 * and no notes nor progress lines, which would push the error out of the message.
 */
export function xorriso(): string[] {
  requireProgram("xorriso");
  const words =
    "xorriso -no_rc -abort_on FAILURE -report_about WARNING -iso_rr_pattern off -disk_pattern off";
  return words.split(" ");
}

/** xorriso takes some names for devices; this prefix says it is a file. */
export const asFile = (path: string): string => `stdio:${resolve(path)}`;

/** The `'quoted'` names that xorriso's `-find` prints, one a line; a quote within is `'"'"'`. */
export function parseFound(text: string): string[] {
  return [...text.matchAll(/^'((?:[^']|'"'"')*)'$/gm)].map((match) => match[1]!.replaceAll(`'"'"'`, "'"));
}

/** The volume date of `-pvd_info`: that of the last change, as in blkid, or of the making. */
export function parseVolumeDate(text: string): string | undefined {
  const dates = ["Modif", "Creation"].map(
    (name) => new RegExp(String.raw`^${name}\S* Time\s*:\s*(\d{16})`, "m").exec(text)?.[1],
  );
  return dates.find((date) => date !== undefined && !/^0+$/.test(date));
}

function notRescue(source: string, why: string): VmError {
  return new VmError("io", `${source} is no ALT Rescue ISO: ${why}`, {
    hint: "take an ISO such as alt-p10-rescue-latest-x86_64.iso, and compare its checksum",
  });
}

/** The identifier of an ISO 9660 volume stands in sector 16 (ECMA-119, 8.1.2). */
async function requireIso(source: string): Promise<void> {
  let identifier: string;
  try {
    // A named pipe is not waited for.
    const file = await open(source, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (!(await file.stat()).isFile())
        throw new VmError("noInput", `${source} is not a regular file`, { hint: "name the ISO file itself" });
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
        hint: "name the ISO of an ALT Rescue",
        cause: error,
      },
    );
  }
  if (identifier !== "CD001") throw notRescue(source, "it holds no ISO 9660 file system");
}

/** A larger file is no boot menu. */
const TEXT_LIMIT_BYTES = 1 << 20;

/** A text as bytes, whatever its encoding, so that writing it back changes nothing else. */
async function readText(path: string): Promise<string> {
  const { size } = await stat(path);
  return size > TEXT_LIMIT_BYTES ? "" : readFile(path, "latin1");
}

/**
 * Reads an ALT Rescue ISO.
 * @param scratch private directory for the files it takes out
 * @throws VmError when it is none, or xorriso is missing or cannot read it
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
