import { chmodSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { CRON_WORDS, cronFields, quoteForCron } from "../../lib/cron.ts";
import { commandLine } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { exec, findProgram } from "../../process/exec.ts";
import { fileError, listDirectory, replaceFile } from "../../store/files.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import { requireVm } from "../../store/no-vm.ts";
import { findHostdir, openVm, type Vm } from "../../vm/find.ts";
import { isSystemdRunning, ownPath, runSystemctl, unitDirectory } from "../../vm/systemd.ts";
import { buildUnits, type TimerPlan, type Unit } from "./units.ts";
import { sha256 } from "../../lib/crypto.ts";

/** Start of an error message. */
export const CANNOT_CHANGE = "cannot change the timer in systemd";

export interface TimerRequest {
  action: "print" | "install" | "remove" | "cron";
  when: string;
  /** The words after `vm -d HOSTDIR`. */
  words: string[];
  /** Which systemd; absent: by the caller's user id. */
  system: boolean | undefined;
}

/** Parses the command's arguments. @throws 64 */
export function parseTimer(args: Record<string, unknown>): TimerRequest {
  const one = (names: readonly string[]): string | undefined => {
    const given = names.filter((name) => args[name] === true);
    if (given.length > 1)
      throw new VmError(
        "usage",
        `timer: ${given.map((name) => `--${name}`).join(" and ")} cannot be combined`,
      );
    return given[0];
  };
  const action = (one(["print", "install", "remove", "cron"]) ?? "print") as TimerRequest["action"];
  const where = one(["user", "system"]);
  const when = (args["on-calendar"] as string | undefined) ?? "hourly";
  if (when === "" || /\p{Cc}/u.test(when))
    throw new VmError("usage", `--on-calendar: '${when}' is not allowed`, {
      hint: "allowed: hourly, daily …",
    });
  if (action === "cron" && cronFields(when, 0) === undefined)
    throw new VmError("usage", `--on-calendar: '${when}' cannot be expressed in a crontab`, {
      hint: `with --cron use one of: ${CRON_WORDS}`,
    });
  const words = args._ as string[];
  return {
    action,
    when,
    // cron mails all output.
    words: words.length > 0 ? words : ["backup", ...(action === "cron" ? ["--quiet"] : [])],
    system: where === undefined ? undefined : where === "system",
  };
}

/** Prints, installs or removes the units that run a command for this VM on a schedule. */
export async function timerVm(context: Context, request: TimerRequest): Promise<void> {
  const hostdir = findHostdir(context);
  // The VM of an old timer may no longer exist.
  if (request.action !== "remove") requireVm(hostdir);
  const vm = await openVm(context);
  const system = request.system ?? process.getuid!() === 0;
  const plan = buildTimerPlan(context, vm, request, system);
  if (request.action === "cron") return context.print(cronLine(plan));
  const { service, timer } = buildUnits(plan);
  const directory = unitDirectory(context, system);
  if (request.action === "remove") return removeUnits(directory, system, service, timer);
  await requireCalendar(plan.when);
  if (request.action === "install") return installUnits(directory, system, plan, service, timer);
  const shown = [service, timer].map(({ name, text }) => `# ${join(directory, name)}\n${text}`);
  context.print(shown.join("\n"));
}

function buildTimerPlan(context: Context, vm: Vm, { words, when }: TimerRequest, system: boolean): TimerPlan {
  const { prog, env } = context;
  const { uid } = statSync(vm.hostdir);
  return {
    prog,
    hostdir: vm.hostdir,
    guest: vm.settings.GUESTNAME,
    argv: [ownPath(context, "the timer"), "-d", vm.hostdir, ...words],
    kind:
      words.map((word) => /^[a-z][a-z-]*$/.exec(word)?.[0]).find((word) => word !== undefined) ?? "command",
    when,
    env: env.TMPDIR === undefined ? {} : { TMPDIR: env.TMPDIR },
    system,
    uid: system && uid !== 0 ? uid : undefined,
  };
}

function cronLine({ hostdir, when, argv, env }: TimerPlan): string {
  if (/\p{Cc}/u.test(argv.join("")))
    throw new VmError("unavailable", "cannot print a crontab line: the path has control characters", {
      hint: "rename the directory, or use systemd: leave out --cron",
    });
  const spread = Number.parseInt(sha256(hostdir).slice(0, 8), 16);
  const settings = Object.entries(env).map(([key, value]) => `${key}=${quoteForCron(value)}`);
  return `${cronFields(when, spread)} ${[...settings, ...argv.map(quoteForCron)].join(" ")}\n`;
}

const changeTimer = (system: boolean, ...words: string[]): Promise<unknown> =>
  runSystemctl(CANNOT_CHANGE, system, ...words);

async function installUnits(
  directory: string,
  system: boolean,
  plan: TimerPlan,
  service: Unit,
  timer: Unit,
): Promise<void> {
  const isNew = !listDirectory(directory).includes(timer.name);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    for (const { name, text } of [service, timer]) {
      replaceFile(join(directory, name), text);
      // systemd warns about units that are not world-readable.
      chmodSync(join(directory, name), 0o644);
    }
  } catch (error) {
    throw fileError("cannot write the timer", error);
  }
  try {
    await changeTimer(system, "daemon-reload");
    await changeTimer(system, "enable", "--now", timer.name);
  } catch (error) {
    if (isNew) for (const { name } of [service, timer]) remove(join(directory, name));
    if (isSystemdRunning() || error instanceof SignalError) throw error;
    throw new VmError("unavailable", "cannot start the timer: systemd is not running on this host", {
      hint: `use a crontab: ${cronHint(plan)}`,
      cause: error,
    });
  }
  log.success(`${timer.name} runs ${plan.when}: ${plan.argv.slice(3).join(" ")}`);
  log.info(`  show its log: journalctl ${system ? "" : "--user "}-u '${service.name}'`);
  if (!system) log.info("  run it while logged out: loginctl enable-linger");
}

/** The command that prints the same for a crontab, where `--quiet` is the default. */
function cronHint({ when, argv }: TimerPlan): string {
  const words = argv.slice(3);
  const often = cronFields(when, 0) === undefined ? "daily" : when;
  const what = words.length === 1 && words[0] === "backup" ? [] : words;
  return commandLine("timer", "--cron", `--on-calendar=${often}`, ...what);
}

/** @throws 64 if systemd rejects the time */
async function requireCalendar(when: string): Promise<void> {
  if (!findProgram("systemd-analyze")) return;
  const result = await exec(["systemd-analyze", "calendar", "--", when], { anyStatus: true });
  if (result.status === 0) return;
  throw new VmError("usage", `--on-calendar: systemd rejects '${when}'`, {
    hint: "use hourly, daily, weekly …, or a calendar event of systemd.time(7)",
  });
}

async function removeUnits(directory: string, system: boolean, service: Unit, timer: Unit): Promise<void> {
  const present = listDirectory(directory);
  const ours = [timer, service].filter(({ name }) => present.includes(name));
  if (ours.length === 0)
    throw new VmError("noInput", `cannot remove the timer: ${join(directory, timer.name)} does not exist`, {
      hint: `give the command that it runs: ${commandLine("timer", "--remove", "COMMAND")}; or act as the user that installed it`,
    });
  if (present.includes(timer.name)) await changeTimer(system, "disable", "--now", timer.name);
  for (const { name } of ours) remove(join(directory, name));
  await changeTimer(system, "daemon-reload");
  log.success(`${timer.name} removed`);
}
