import { chmodSync } from "node:fs";
import { basename, join } from "node:path";
import { SignalError, VmError } from "../../lib/errors.ts";
import { commandLineFor } from "../../lib/command-line.ts";
import { log } from "../../lib/log.ts";
import { lstatOf, readSmall } from "../../lib/read-file.ts";
import { escapePath, escapeValue, quoteWord } from "../../lib/systemd.ts";
import { exec, findProgram } from "../../process/exec.ts";
import { listDirectory, replaceFile } from "../../store/files.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import { runSystemctl, unitDirectory } from "../../vm/systemd.ts";
import { CANNOT_CHANGE } from "./timer.ts";
import { unitName } from "./units.ts";

/** Names before and after. */
interface Renamed {
  from: string;
  to: string;
  guest: string;
}

/** In a service: the argument of `-d`. */
const directoryWords = (hostdir: string): string =>
  ["-d", hostdir].map((word) => quoteWord(word).replaceAll("$", "$$$$")).join(" ");

/**
 * Has the timers of a VM act on its new directory. A crontab is its user's: what names the old one there is reported.
 * @throws 74 if the VM is renamed, but not its timers
 */
export async function renameTimers(context: Context, renamed: Renamed): Promise<void> {
  const { from, to } = renamed;
  if (from === to) return;
  try {
    for (const system of process.getuid!() === 0 ? [false, true] : [false])
      await renameUnits(context, renamed, system);
  } catch (error) {
    if (
      error instanceof SignalError ||
      !(error instanceof VmError || (error instanceof Error && "errno" in error))
    )
      throw error;
    throw new VmError("io", `the VM is renamed, but not its timers: ${error.message}`, {
      cause: error,
      hint: `repeat it: ${commandLineFor(to, "rename", basename(to))}`,
    });
  }
  await reportCrontab(from);
}

async function renameUnits(context: Context, renamed: Renamed, system: boolean): Promise<void> {
  const directory = unitDirectory(context, system);
  const wants = join(directory, "timers.target.wants");
  const kinds = listDirectory(directory).flatMap((file) =>
    findKind(context.prog, directory, file, renamed.from),
  );
  const name = (kind: string, hostdir: string): string => unitName({ prog: context.prog, kind, hostdir });
  const instance = (hostdir: string): string => `${context.prog}-backup@${escapePath(hostdir)}`;
  const pairs = kinds.map((kind) => [name(kind, renamed.from), name(kind, renamed.to)] as const);
  const instances = [[instance(renamed.from), instance(renamed.to)] as const];
  for (const [old, next] of pairs)
    for (const suffix of [".service", ".timer"])
      writeRenamed(directory, old + suffix, next + suffix, renamed);
  const enabled = [...pairs, ...instances].filter(([old]) => lstatOf(join(wants, `${old}.timer`)));
  if (pairs.length === 0 && enabled.length === 0) return;
  await runSystemctl(CANNOT_CHANGE, system, "daemon-reload");
  for (const [old, next] of enabled) {
    await runSystemctl(CANNOT_CHANGE, system, "enable", "--now", `${next}.timer`);
    await runSystemctl(CANNOT_CHANGE, system, "disable", "--now", `${old}.timer`);
    log.info(`  ${old}.timer is ${next}.timer now`);
  }
  for (const [old] of pairs)
    for (const suffix of [".timer", ".service"]) remove(join(directory, old + suffix));
  await runSystemctl(CANNOT_CHANGE, system, "daemon-reload");
}

/** The command that a service of this program runs for a VM; none for any other file. */
function findKind(prog: string, directory: string, file: string, hostdir: string): string[] {
  if (!file.startsWith(`${prog}-`) || !file.endsWith(".service")) return [];
  const text = readSmall(join(directory, file)) ?? "";
  if (!text.includes(` ${directoryWords(hostdir)}`)) return [];
  const stem = file.slice(prog.length + 1, -".service".length);
  const kind = /^[a-z][a-z-]*?(?=-)/.exec(stem)?.[0];
  const kinds =
    kind === undefined
      ? []
      : [kind, ...stem.split("-").map((_, at, words) => words.slice(0, at + 1).join("-"))];
  return kinds.filter(
    (one, at) => kinds.indexOf(one) === at && `${unitName({ prog, kind: one, hostdir })}.service` === file,
  );
}

function writeRenamed(directory: string, old: string, next: string, { from, to, guest }: Renamed): void {
  const text = readSmall(join(directory, old));
  if (text === undefined) return;
  const named = guest === "" ? "the VM" : guest;
  const changed = text
    .replaceAll(` ${directoryWords(from)}`, () => ` ${directoryWords(to)}`)
    .replaceAll(escapeValue(` of ${named} in ${from}`), () => escapeValue(` of ${basename(to)} in ${to}`));
  replaceFile(join(directory, next), changed);
  chmodSync(join(directory, next), 0o644);
}

async function reportCrontab(from: string): Promise<void> {
  if (!findProgram("crontab")) return;
  const { status, stdout } = await exec(["crontab", "-l"], { anyStatus: true });
  if (status === 0 && stdout.includes(from))
    log.warn(`your crontab still names ${from}; change it: crontab -e`);
}
