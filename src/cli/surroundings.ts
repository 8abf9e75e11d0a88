import { statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { basename } from "pathe";
import type { Options, ProcessFacts } from "../vm/context.ts";
import { DATA_NAME, findInstalledLibexec } from "../rescue/libexec.ts";

const UNAME: Record<string, string> = { x64: "x86_64", arm64: "aarch64", ia32: "i386" };

/** The name the program was started under; anything odd counts as `vm`. */
export function progName(argv0: string): string {
  const name = basename(argv0);
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name) && name !== "bun" ? name : "vm";
}

/** HOME, or the user database's word for it: cron and services may set none. */
function homeOf(env: Record<string, string | undefined>): string {
  if (env.HOME && isAbsolute(env.HOME)) return env.HOME;
  try {
    return process.getBuiltinModule("node:os").userInfo().homedir || "/";
  } catch {
    return "/";
  }
}

/**
 * Directory of profiles if `~/PROG` is a file, such as the program itself, copied to HOME.
 * @returns undefined for `~/PROG`
 */
export function profilesBeside(prog: string, home: string, dataHome: string | undefined): string | undefined {
  if (!isFile(join(home, prog))) return undefined;
  return join(dataHome && isAbsolute(dataHome) ? dataHome : join(home, ".local/share"), prog);
}

function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  } catch {
    return false;
  }
}

/** A command line without any. */
export const NO_OPTIONS: Options = { settings: {}, additions: {}, hostdir: undefined };

/** Collects the facts about this process, once. */
export function collectFacts(prog: string, version: string, options: Options): ProcessFacts {
  const { env } = process;
  const home = homeOf(env);
  const caches =
    env.XDG_CACHE_HOME && isAbsolute(env.XDG_CACHE_HOME) ? env.XDG_CACHE_HOME : join(home, ".cache");
  const cacheDirectory = join(caches, "vm");
  const installed = findInstalledLibexec(process.execPath);
  return {
    prog,
    version,
    cwd: process.cwd(),
    home,
    env,
    hostArch: UNAME[process.arch] ?? process.arch,
    tmpdir: env.TMPDIR && isAbsolute(env.TMPDIR) ? env.TMPDIR : "/tmp",
    cacheDirectory,
    profiles: profilesBeside(prog, home, env.XDG_DATA_HOME),
    libexec: installed ?? join(cacheDirectory, DATA_NAME),
    libexecInstalled: installed !== undefined,
    options,
  };
}
