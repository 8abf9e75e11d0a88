import { toJson } from "../../lib/json.ts";
import { commandLine, commandLineFor, programLine } from "../../lib/command-line.ts";
import { log } from "../../lib/log.ts";
import { formatTable } from "../../lib/table.ts";
import { plain } from "../../lib/text.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { readCronRecord, type Autostart, type AutostartPlan } from "../../vm/autostart.ts";
import { readUnitStates, type UnitState } from "../../vm/autostart-state.ts";
import type { Context } from "../../vm/context.ts";
import { formatUnitState } from "../../vm/status-text.ts";
import { listUnits } from "./units.ts";

const HEAD = ["ORDER", "DIRECTORY", "BY", "DELAY", "WAIT", "RESTART", "STATE"];

/** Lists the VMs that are started with the host, in their order. */
export async function listAutostart(context: Context, json: boolean): Promise<void> {
  const all: (Autostart & { state?: UnitState | undefined })[] = [];
  for (const manager of ["system", "user"] as const) {
    const units = listUnits(context, manager === "system");
    const states = await readUnitStates(
      manager === "system",
      units.map(({ name }) => name),
    );
    for (const { name, plan } of units) all.push({ manager, unit: name, plan, state: states.get(name) });
  }
  for (const plan of readCronRecord(context).toSorted((a, b) => a.order - b.order))
    all.push({ manager: "cron", plan });
  if (json) return context.print(toJson(all.map(summarizeAutostart)));
  if (all.length === 0)
    return log.info(`no VM is started with the host; to have one started: ${commandLine("autostart", "on")}`);
  const rows = all.map(({ manager, plan, state }) => [
    String(plan.order),
    plain(plan.directory),
    manager === "cron" ? manager : `systemd, ${manager}`,
    plan.delaySeconds > 0 ? `${plan.delaySeconds} s` : "",
    plan.wait ?? "",
    plan.restart ? "yes" : "",
    describeStart(plan, state),
  ]);
  context.print(formatTable([HEAD, ...rows]));
  for (const { plan } of all.filter(({ plan: { directory } }) => !lstatOf(directory)))
    log.warn(
      `no VM in ${plain(plan.directory)}: ${programLine("autostart", "off", plan.directory)}; if it was moved, then: ${commandLineFor("NEWDIR", "autostart", "on")}`,
    );
}

function describeStart({ directory, program }: AutostartPlan, state: UnitState | undefined): string {
  if (!lstatOf(directory)) return "no such directory";
  if (!lstatOf(program)) return `no such program: ${plain(program)}`;
  return state ? formatUnitState(state) : "";
}

const summarizeAutostart = ({
  manager,
  unit,
  plan,
  state,
}: Autostart & { state?: UnitState | undefined }) => ({
  directory: plan.directory,
  manager,
  unit: unit ?? null,
  order: plan.order,
  delaySeconds: plan.delaySeconds,
  wait: plan.wait,
  restart: plan.restart,
  state: state ?? null,
});
