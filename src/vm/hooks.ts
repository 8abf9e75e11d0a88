/** Hooks of a VM: the user's scripts that run on this host. */
import { join } from "node:path";
import type { BashVariables } from "../config/bash.ts";
import { reasonOf } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { refuseForeignScript } from "../rescue/find-job.ts";
import { runHook, type HookOptions } from "../rescue/hooks.ts";
import type { Context } from "./context.ts";
import type { NotedEnd } from "./ended.ts";
import { readVm, type Vm } from "./find.ts";

/** When each runs, in the words of the manual. */
export const VM_HOOKS = {
  "on-start": "after qemu has started",
  "on-stop": "after a run that the guest, a command or `suspend` ended",
  "on-crash": "after a run that a panic, a crash or a kill ended",
  "pre-backup": "before a backup, which is not made if it fails",
  "post-backup": "after a backup, made or failed",
} as const;
export type VmHook = keyof typeof VM_HOOKS;

/** Of a hook that must not delay the command for ever. */
const LIMIT_MS = 60_000;

/** In the environment of a hook, and of what it runs. */
const WITHIN = "VM_HOOK";

/** Set for each hook, as bash ends one that uses an unset variable. */
const NO_FACTS = Object.fromEntries(
  "VM_PID VM_END VM_HOW VM_OUTCOME VM_SNAPSHOT VM_STATUS VM_MESSAGE VM_BYTES VM_SECONDS"
    .split(" ")
    .map((name) => [name, ""]),
);

/**
 * In HOSTDIR, else among the user's jobs in `~/PROG`. Not in PROFILES, which only the settings tell: without a hook they
 * need not be read for it.
 */
export function findVmHook(
  { home, prog, profiles }: Context,
  hostdir: string,
  hook: VmHook,
): string | undefined {
  const directories = [hostdir, join(profiles ?? join(home, prog), "scripts/jobs")];
  return directories.map((directory) => join(directory, `${hook}.hook`)).find((file) => lstatOf(file));
}

/**
 * Runs a hook, if there is one, in HOSTDIR.
 * @param facts its variables, besides the settings
 * @throws 1 if it fails, 78 if another user can write to it
 */
export async function runVmHook(
  context: Context,
  vm: Vm,
  hook: VmHook,
  facts: Record<string, string> = {},
  options: HookOptions = {},
): Promise<void> {
  // A hook that runs this program would run itself again, without end.
  if (context.env[WITHIN] !== undefined) return;
  const path = findVmHook(context, vm.hostdir, hook);
  if (path === undefined) return;
  refuseForeignScript(path);
  const { hostdir, work, settings } = vm;
  const variables: BashVariables = {
    ...vm.raw,
    PROG: context.prog,
    HOSTDIR: hostdir,
    WORKDIR: work.state === "present" ? work.dir : "",
    PROFILES: settings.PROFILES,
    ...NO_FACTS,
    ...facts,
  };
  await runHook(path, hostdir, variables, vm.userShell, { ...options, env: { [WITHIN]: hook } });
}

/** The same of one whose failure is only a warning. It has a minute. */
export async function runLateHook(
  context: Context,
  vm: Vm,
  hook: VmHook,
  facts: Record<string, string> = {},
): Promise<void> {
  try {
    await runVmHook(context, vm, hook, facts, { limitMs: LIMIT_MS, keepOnInterrupt: true });
  } catch (error) {
    log.warn(reasonOf(error));
  }
}

/** After the end of a run was recorded. */
export async function runEndHook(
  context: Context,
  { hostdir, ended: { end, how } }: NotedEnd,
): Promise<void> {
  const crashed = end === "crashed" || end === "killed" || end === "unknown";
  const vm = await readVm(context, hostdir, true, { lenient: true });
  await runLateHook(context, vm, crashed ? "on-crash" : "on-stop", { VM_END: end, VM_HOW: how });
}
