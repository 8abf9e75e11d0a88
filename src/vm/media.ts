import { existsSync, realpathSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { bashEnvironment, buildBashArgv, FATAL, parseBashVariables } from "../config/bash.ts";
import { commandLine } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { isForbidden, requireReadableFile } from "../lib/read-file.ts";
import { macroOf, type MacroValues } from "../machine/macros.ts";
import { exec } from "../process/exec.ts";
import { readImageHeader } from "../qemu/image-header.ts";
import { refuseNonImage } from "../qemu/non-image.ts";
import { shellQuote } from "../lib/shell.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";
import { STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** For bash: sources check-media with its output on stderr, and prints MEDIA. */
const SCRIPT = `${FATAL}: "\${MEDIA=}"
exec 3>&1 1>&2
. "$1"
printf 'MEDIA\\0s\\0%s\\0' "\${MEDIA-}" >&3`;

/** Finds a file on PATH, never in the current directory (which an earlier restore of the batch may have removed). */
export function findOnPath(context: Context, name: string): string | undefined {
  const directories = (context.env.PATH ?? "").split(":").filter((item) => isAbsolute(item));
  const cwd = existsSync(context.cwd) ? realpathSync(context.cwd) : undefined;
  return directories
    .filter((item) => existsSync(item) && realpathSync(item) !== cwd)
    .map((item) => join(item, name))
    .find((path) => existsSync(path) && statSync(path).isFile());
}

export const findCheckMedia = (context: Context): string | undefined => findOnPath(context, "check-media");

/** A missing CD image. */
export class NoSuchIso extends VmError {
  /** @param failure of check-media */
  constructor(name: string, places: readonly string[], failure?: VmError) {
    super("noInput", `no such CD image: ${name}`, {
      hint: `checked: ${places.join(", ")}${failure ? `; not MEDIA: ${failure.message}` : ""}`,
    });
  }
}
/** Also if this user may not see it: that is then the error. */
const isThereOrHidden = (path: string): boolean => existsSync(path) || isForbidden(path);

/** A failure other than an interruption. */
const isPlainFailure = (error: unknown): error is VmError =>
  error instanceof VmError && !(error instanceof SignalError);

/** Finds external media, only when something refers to them; runs `check-media` at most once. */
export class Media {
  #result: Promise<string> | undefined;

  constructor(
    private readonly context: Context,
    private readonly vm: Vm,
  ) {}

  /** Values for the macros at the start of these paths. The macro of an absent mirror has no value. */
  async macros(paths: readonly string[], workdir: string): Promise<MacroValues> {
    const used = new Set(paths.map(macroOf));
    return {
      MEDIA: used.has("MEDIA") ? await this.#required() : undefined,
      MIRROR: used.has("MIRROR") ? await this.#mirror() : undefined,
      HOSTDIR: this.vm.hostdir,
      INDIR: join(workdir, WORK.in),
      DATADIR: join(workdir, WORK.out),
    };
  }

  /** MEDIA if these paths need it or it is known already, else undefined. */
  async root(paths: readonly string[]): Promise<string | undefined> {
    await this.macros(paths, "");
    // If these paths require it, `macros` has thrown.
    return this.#result?.catch(() => undefined);
  }

  /**
   * Finds a CD image: in the current directory, in HOSTDIR, then in the media storage.
   * @throws 66 if it does not exist or is not a readable file, 74 if it cannot be a CD image
   */
  async findIso(name: string): Promise<string> {
    const places = [resolve(this.context.cwd, name), resolve(this.vm.hostdir, name)];
    let found = places.find(isThereOrHidden);
    let failure: VmError | undefined;
    if (!found && !isAbsolute(name)) {
      const storage = await this.#storage().catch((error: unknown) => {
        // Without MEDIA_STORAGE the image need not be there.
        if (this.vm.settings.MEDIA_STORAGE !== "" || !isPlainFailure(error)) throw error;
        failure = error;
        return undefined;
      });
      const path = storage === undefined ? undefined : join(storage, name);
      if (path !== undefined) places.push(path);
      if (path !== undefined && isThereOrHidden(path)) found = path;
    }
    if (!found) throw new NoSuchIso(name, [...new Set(places)], failure);
    return requireCd(requireReadableFile(found, "the CD image"));
  }

  /** [compat] With check-media an empty MEDIA_STORAGE means MEDIA itself. Undefined: there is no media storage. */
  async #storage(): Promise<string | undefined> {
    const { MEDIA_STORAGE } = this.vm.settings;
    if (MEDIA_STORAGE === "" && findCheckMedia(this.context) === undefined) return undefined;
    return (await this.#media()) + MEDIA_STORAGE || undefined;
  }

  /**
   * [compat] With check-media an empty MEDIA_MIRROR means MEDIA itself; as no setting requires it, it is omitted if there
   * are no media.
   */
  async #mirror(): Promise<string | undefined> {
    const { MEDIA_MIRROR } = this.vm.settings;
    if (MEDIA_MIRROR !== "") return (await this.#media()) + MEDIA_MIRROR;
    if (findCheckMedia(this.context) === undefined) return undefined;
    try {
      return (await this.#media()) || undefined;
    } catch (error) {
      if (!isPlainFailure(error)) throw error;
      warnOnce(`${error.message}; shares of @MIRROR@ are omitted`);
      return undefined;
    }
  }

  /** @throws 69 if MEDIA is not defined, 66 if check-media fails */
  async #required(): Promise<string> {
    if (findCheckMedia(this.context) === undefined && this.context.env.MEDIA === undefined)
      throw new VmError("unavailable", "a setting refers to @MEDIA@, but there is no check-media on PATH", {
        hint: "write a bash script check-media that sets MEDIA, or set MEDIA in the environment",
      });
    return this.#media();
  }

  /** MEDIA from `check-media`, else from the environment. @throws 66 if check-media fails */
  #media(): Promise<string> {
    return (this.#result ??= this.#runCheckMedia());
  }

  async #runCheckMedia(): Promise<string> {
    const script = findCheckMedia(this.context);
    if (script === undefined) return this.context.env.MEDIA ?? "";
    const { raw, hostdir, userShell } = this.vm;
    const variables = { ...raw, PROG: this.context.prog, HOSTDIR: hostdir };
    const { status, stdout } = await exec(buildBashArgv(variables, SCRIPT, [script]), {
      anyStatus: true,
      stdin: 0,
      stderr: 2,
      runAs: "user",
      // It may ask for a password, to mount something.
      ownSession: !isTerminal(STDIN),
      env: bashEnvironment(variables, userShell),
    });
    const media = parseBashVariables(stdout).MEDIA;
    // [compat] An empty MEDIA is valid: MEDIA_MIRROR and MEDIA_STORAGE are absolute paths then.
    if (status === 0 && typeof media === "string") return media;
    throw new VmError("noInput", `check-media failed (${script}): no media are available`, {
      hint: "connect the media, or change MEDIA_MIRROR and MEDIA_STORAGE",
    });
  }
}

/** @returns the path @throws 74 if it cannot be a CD image: a compressed one, a web page, a disk image */
export function requireCd(path: string): string {
  refuseNonImage(path, "cannot use the CD image");
  const { format } = readImageHeader(path);
  if (format === "raw") return path;
  throw new VmError("io", `cannot use the CD image ${path}: it is a disk image (${format})`, {
    hint: `create a VM from it: ${commandLine("create", "NAME", `--from=${path}`)}; or attach it: --image=VIRT=${format}=${shellQuote(path)}`,
  });
}
