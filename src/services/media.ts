import { accessSync, constants, existsSync, realpathSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { bashEnvironment, buildBashArgv, parseBashVariables } from "../config/bash.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { macroOf, type MacroValues } from "../machine/macros.ts";
import { exec } from "../process/exec.ts";
import { readImageHeader } from "../qemu/image-header.ts";
import { refuseNoImage } from "../qemu/no-image.ts";
import { shellQuote } from "../qemu/text.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./open.ts";

/** Sourced by bash; what it prints goes to the user, MEDIA comes back behind the mark. */
const SCRIPT = `exec 3>&1 1>&2
. "$1"
printf '\\0%s\\0MEDIA\\0s\\0%s\\0' "$_vm_mark" "\${MEDIA-}" >&3`;

/** A file on PATH, but never from the current directory. */
export function findOnPath(context: Context, name: string): string | undefined {
  const directories = (context.env.PATH ?? "").split(":").filter((item) => isAbsolute(item));
  const cwd = realpathSync(context.cwd);
  return directories
    .filter((item) => existsSync(item) && realpathSync(item) !== cwd)
    .map((item) => join(item, name))
    .find((path) => existsSync(path) && statSync(path).isFile());
}

export const findCheckMedia = (context: Context): string | undefined => findOnPath(context, "check-media");

/** A CD image that is nowhere. */
export class NoSuchIso extends VmError {
  constructor(name: string, places: readonly string[]) {
    super("noInput", `no such CD image: ${name}`, { hint: `looked for: ${places.join(", ")}` });
  }
}

/** Finds external media when something refers to them, and only then; asks `check-media` at most once. */
export class Media {
  #media: Promise<string> | undefined;

  constructor(
    private readonly context: Context,
    private readonly vm: Vm,
  ) {}

  /** Values for the macros that these paths begin with. A share of an absent mirror has no value. */
  async macros(paths: readonly string[], workdir: string): Promise<MacroValues> {
    const used = new Set(paths.map(macroOf));
    const { MEDIA_MIRROR } = this.vm.settings;
    const mirror = used.has("MIRROR") && MEDIA_MIRROR !== "";
    const media = used.has("MEDIA") || mirror ? await this.root(used.has("MEDIA")) : undefined;
    return {
      MEDIA: media,
      MIRROR: mirror ? media + MEDIA_MIRROR : undefined,
      HOSTDIR: this.vm.hostdir,
      INDIR: join(workdir, WORK.in),
      DATADIR: join(workdir, WORK.out),
    };
  }

  /**
   * Looks for a CD image: as given, in HOSTDIR, then in the media storage.
   * @throws 66 when it is nowhere, or is no readable file, 74 when it can be no CD image
   */
  async findIso(name: string): Promise<string> {
    const places = [resolve(this.context.cwd, name), resolve(this.vm.hostdir, name)];
    let found = places.find((path) => existsSync(path));
    const { MEDIA_STORAGE } = this.vm.settings;
    if (!found && MEDIA_STORAGE && !isAbsolute(name)) {
      const path = join((await this.root(false)) + MEDIA_STORAGE, name);
      places.push(path);
      if (existsSync(path)) found = path;
    }
    if (!found) throw new NoSuchIso(name, [...new Set(places)]);
    return requireCd(requireReadableFile(found, "the CD image"));
  }

  /** MEDIA, as `check-media` sets it; empty without one. */
  root(needed: boolean): Promise<string> {
    return (this.#media ??= this.#ask(needed));
  }

  async #ask(needed: boolean): Promise<string> {
    const script = findCheckMedia(this.context);
    if (!script) {
      const given = this.context.env.MEDIA;
      if (given !== undefined || !needed) return given ?? "";
      throw new VmError("unavailable", "a setting refers to @MEDIA@, but there is no check-media on PATH", {
        hint: "write a bash script check-media that sets MEDIA, or set MEDIA in the environment",
      });
    }
    const mark = crypto.randomUUID();
    const variables = {
      ...this.vm.raw,
      PROG: this.context.prog,
      HOSTDIR: this.vm.hostdir,
      MEDIA: this.context.env.MEDIA ?? "",
      _vm_mark: mark,
    };
    const result = await exec(buildBashArgv(variables, SCRIPT, [script]), {
      anyStatus: true,
      env: bashEnvironment(variables),
    });
    if (result.stderr) process.stderr.write(result.stderr);
    const media = parseBashVariables(result.stdout, mark)?.MEDIA;
    if (result.status !== 0 || typeof media !== "string" || media === "")
      throw new VmError("noInput", `check-media failed (${script}): no media are available`, {
        hint: "connect the media, or change MEDIA_MIRROR and MEDIA_STORAGE",
      });
    return media;
  }
}

/** The path itself, or 74 where it cannot be a CD image: a packed one, a web page, a disk image. */
export function requireCd(path: string): string {
  refuseNoImage(path, "cannot use the CD image");
  const { format } = readImageHeader(path);
  if (format === "raw") return path;
  throw new VmError("io", `cannot use the CD image ${path}: it is a disk image (${format})`, {
    hint: `make a VM from it: create NAME --from=${shellQuote(path)}; or attach it: --image=VIRT=${format}=${shellQuote(path)}`,
  });
}

/** The path itself, or 66 when it is not a file that can be read. */
export function requireReadableFile(path: string, what: string): string {
  const problem = readProblem(path);
  if (problem) throw new VmError("noInput", `${what} ${path} cannot be used: ${problem}`);
  return path;
}

function readProblem(path: string): string | undefined {
  try {
    const stats = statSync(path);
    if (stats.isDirectory()) return "it is a directory";
    if (!stats.isFile() && !stats.isBlockDevice()) return "it is neither a file nor a block device";
    accessSync(path, constants.R_OK);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}
