import { closeSync, existsSync } from "node:fs";
import { constants } from "node:os";
import { join, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { StatusError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { start } from "../process/exec.ts";
import {
  HURRY_MS,
  signalError,
  takeSignals,
  throwIfInterrupted,
  type StopSignal,
} from "../process/signals.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf } from "../lib/read-file.ts";
import { createFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { effectiveForwards } from "../vm/nics.ts";
import { requireRunning } from "../vm/running.ts";
import type { Vm } from "../vm/find.ts";
import { requireSsh, START_WITH_SSH } from "../vm/ssh-forward.ts";

/** How ssh and scp reach one guest. */
interface Access {
  host: string;
  options: string[];
  knownHosts: string;
  user: string;
}

/** Exit status of ssh and scp for connection errors (ssh(1), EXIT STATUS). */
const NO_CONNECTION = 255;

/** Logs in to the guest on this terminal; `args` are passed to ssh. @throws ssh's status, 69 without a forward */
export async function sshToGuest(context: Context, args: readonly string[], user?: string): Promise<void> {
  const access = await findAccess(context, "log in by ssh", user);
  await runHere(context, access, ["ssh", ...access.options, access.host, ...args]);
}

/** Copies by scp. @throws scp's status, 69 without a forward */
export async function copyByScp(
  context: Context,
  paths: readonly CopyPath[],
  flags: readonly string[],
  user?: string,
): Promise<void> {
  const access = await findAccess(context, "copy by ssh", user);
  const host = access.host.includes(":") ? `[${access.host}]` : access.host;
  const places = paths.map(({ guest, path }) => (guest ? `${host}:${path}` : path));
  await runHere(context, access, ["scp", ...flags, ...access.options, "--", ...places]);
}

/** A path of `cp`. */
export interface CopyPath {
  guest: boolean;
  path: string;
}

/** Parses the paths of `cp`; local ones are made unambiguous for scp. @throws 64 */
export function parseCopy(paths: readonly string[]): CopyPath[] {
  if (paths.length < 2)
    throw new VmError("usage", "cp: DST is missing", {
      hint: `copy into the guest: ${commandLine("cp", "FILE", ":/root/")}\nfrom it: ${commandLine("cp", ":/etc/hosts", ".")}`,
    });
  if (!paths.some((path) => path.startsWith(":")))
    throw new VmError("usage", "cp: no path is in the guest", {
      hint: `prefix a path in the guest with a colon: ${commandLine("cp", ...paths.slice(0, -1), `:${paths.at(-1)}`)}`,
    });
  return paths.map((path) => {
    if (path.startsWith(":")) return { guest: true, path: path.slice(1) };
    // scp would read `a:b` as a host.
    return { guest: false, path: path.includes(":") && !path.startsWith("/") ? `./${path}` : path };
  });
}

/** @param typed value of --user; absent: SSH_USER */
async function findAccess(context: Context, what: string, typed: string | undefined): Promise<Access> {
  const { vm, work } = await requireRunning(context, what, START_WITH_SSH);
  const user = typed ?? vm.settings.SSH_USER;
  const { GUESTNAME } = vm.settings;
  const place = requireSsh(work.mark.run?.forwards ?? effectiveForwards(vm.settings));
  const knownHosts = join(work.dir, WORK.knownHosts);
  const options = buildSshOptions({
    port: place.port,
    user,
    knownHosts,
    alias: /^[\w.-]+$/.test(GUESTNAME) ? GUESTNAME : "vm",
    keys: findKeys(vm, Boolean(context.env.SSH_AUTH_SOCK)),
  });
  return { host: place.host, options, knownHosts, user };
}

/** Options for this VM, which override ssh_config (ssh_config(5)). */
export function buildSshOptions(access: {
  port: number;
  user: string;
  knownHosts: string;
  alias: string;
  keys: readonly string[];
}): string[] {
  const { port, user, knownHosts, alias, keys } = access;
  return [
    `Port=${port}`,
    `User=${quoteSshOption(user)}`,
    `UserKnownHostsFile=${quotedPath(knownHosts)}`,
    "GlobalKnownHostsFile=none",
    "StrictHostKeyChecking=accept-new",
    `HostKeyAlias=${alias}`,
    "HashKnownHosts=no",
    // Another VM may have had this port before; a proxy does not reach this host's loopback.
    "ControlPath=none",
    "ProxyCommand=none",
    ...keys.map((key) => `IdentityFile=${quotedPath(key)}`),
    // sshd disconnects after some unknown keys of an agent (sshd_config(5), MaxAuthTries).
    ...(keys.length > 0 ? ["IdentitiesOnly=yes"] : []),
  ].flatMap((option) => ["-o", option]);
}

/** One word of ssh_config. */
const quoteSshOption = (word: string): string => `"${word.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
const quotedPath = (path: string): string => quoteSshOption(path.replaceAll("%", "%%"));

/** Settings with the VM's keys. */
interface KeyNames {
  hostdir: string;
  settings: Pick<Vm["settings"], "SSHKEYS">;
}

/**
 * The private keys beside the public ones in SSHKEYS.
 * @param agent an agent is running: a public key is enough to select its key
 */
export function findKeys({ settings, hostdir }: KeyNames, agent: boolean): string[] {
  return settings.SSHKEYS.filter((path) => path.endsWith(".pub"))
    .map((path) => resolve(hostdir, path))
    .flatMap((path) => {
      const names = [path.slice(0, -".pub".length), ...(agent ? [path] : [])];
      return names.find((key) => existsSync(key)) ?? [];
    });
}

/** Runs a program on this terminal, in this directory, and throws its status. */
async function runHere(context: Context, access: Access, argv: readonly string[]): Promise<void> {
  throwIfInterrupted();
  const known = (lstatOf(access.knownHosts)?.size ?? 0) > 0;
  // ssh would create it with the user's umask.
  if (!lstatOf(access.knownHosts)) closeSync(createFile(access.knownHosts));
  const child = start(argv, {
    stdin: 0,
    stdout: 1,
    stderr: 2,
    cwd: context.cwd,
    runAs: "user",
    whenOrphaned: "TERM",
    keepOnInterrupt: true,
    ownSession: false,
  });
  let kill: ReturnType<typeof setTimeout> | undefined;
  let stop: StopSignal | undefined;
  using _taken = takeSignals((signal) => {
    stop ??= signal;
    child.kill(signal);
    // It may hang or be stopped, and ignore the signal.
    kill ??= setTimeout(() => child.kill("SIGKILL"), HURRY_MS);
  });
  const { status, signal } = await child.done;
  clearTimeout(kill);
  if (status === 0) return;
  if (stop && signal === "SIGKILL") throw signalError(stop, `${argv[0]} did not end after ${stop}`);
  if (status === NO_CONNECTION) {
    log.info(`${argv[0]} used the name ${access.user}; to use another one: --user=NAME`);
    if (known)
      log.info(`remove the old key if the guest was reinstalled: rm ${shellQuote(access.knownHosts)}`);
  }
  const code = signal ? 128 + constants.signals[signal as NodeJS.Signals] : (status ?? 1);
  throw new StatusError(`${argv[0]} ended with status ${code}`, code);
}
