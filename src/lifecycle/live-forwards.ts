import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { takesForwards } from "../machine/network.ts";
import { forwardLine } from "../qemu/devices/nic.ts";
import { updateRun } from "../store/mark.ts";
import { findForwardProblem, requireFreeForwards } from "../vm/display.ts";
import { effectiveForwards, networksOf, type NicSettings } from "../vm/nics.ts";
import { withMonitor } from "../vm/running.ts";
import type { Run } from "../vm/running-settings.ts";

const HOSTFWD = "hostfwd=";

/** Is it a rule that a running qemu can add and remove? */
export const isHostRule = (option: string): boolean => option.startsWith(HOSTFWD);

export const ruleOf = (option: string): string => option.slice(isHostRule(option) ? HOSTFWD.length : 0);

/**
 * Changes the forwards of the running machine and their record: all, or none after an error. Other options than `hostfwd=`
 * stay.
 * @param after all forwards, as options of `-netdev user`
 * @throws 69 without a card for them, 75 if a port is taken, 66 or 73 if it cannot be listened on
 */
export async function changeForwards(run: Run, after: readonly string[]): Promise<void> {
  const before = run.record.forwards;
  const removed = before.filter((option) => isHostRule(option) && !after.includes(option));
  const added = after.filter((option) => isHostRule(option) && !before.includes(option));
  if (removed.length === 0 && added.length === 0) return;
  const networks = networksOf(run.now.settings);
  const card = networks.findIndex(takesForwards) + 1;
  if (card === 0) throw noCard();
  if (networks[card - 1]!.kind === "passt")
    throw new VmError("unavailable", "passt cannot change its forwards while the guest runs", {
      hint: `change them from the next run on: ${commandLine("set", "FORWARDS=…")}`,
    });
  const now = new Set(before);
  await withMonitor(run.work, async (qmp) => {
    const change = async (action: "add" | "remove", option: string): Promise<string> =>
      qmp.execute("human-monitor-command", { "command-line": forwardLine(action, card, ruleOf(option)) });
    try {
      for (const option of removed) {
        await change("remove", option);
        now.delete(option);
      }
      for (const option of added) {
        // A command that was killed before it recorded the forward may have added it.
        if ((await findForwardProblem(option)) === "taken") await change("remove", option);
        await requireFreeForwards([option]);
        const refusal = await change("add", option);
        if (refusal.trim() !== "")
          throw new VmError("io", `qemu refused the forward ${ruleOf(option)}: ${refusal.trim()}`);
        now.add(option);
      }
    } catch (error) {
      for (const option of added) if (now.delete(option)) await change("remove", option).catch(() => {});
      for (const option of removed)
        if (!now.has(option) && (await change("add", option).catch(() => "lost")).trim() === "")
          now.add(option);
      throw error;
    } finally {
      updateRun(run.work.dir, { forwards: [...now] });
    }
  });
}

export const noCard = (): VmError =>
  new VmError("unavailable", "no network card is on user or passt, which port forwards need", {
    hint: `add one: ${commandLine("nic", "add")}`,
  });

const rulesOf = (options: readonly string[]): string =>
  options.map((option) => `forward ${ruleOf(option)}`).join(", ");

/** Reports forwards that a change leaves without a card, or that it stores without one. */
export function noteIdleForwards(before: NicSettings, after: NicSettings): void {
  const idle = effectiveForwards(after).length === 0 ? after.FORWARDS : [];
  if (idle.length === 0) return;
  if (effectiveForwards(before).length > 0)
    return log.info(`kept without effect, as no card is on user or passt: ${rulesOf(idle)}`);
  const stored = idle.filter((option) => !before.FORWARDS.includes(option));
  if (stored.length > 0)
    log.warn(
      `without effect, as no card is on user or passt: ${rulesOf(stored)}; add one: ${commandLine("nic", "add")}`,
    );
}
