import { exec } from "../process/exec.ts";
import { systemctl } from "./systemd.ts";

/** What systemd says of a unit (systemctl(1), "show"). */
export interface UnitState {
  /** `active`, `inactive`, `failed`, `activating` … */
  active: string;
  /** Why it failed: `exit-code`, `signal`, `start-limit-hit` …; `success`. */
  result: string;
  restarts: number;
  mainPid: number | null;
}

const PROPERTIES = ["Id", "ActiveState", "Result", "NRestarts", "MainPID"];

/** The states of units of one manager, by their names; none if it cannot be asked. */
export async function readUnitStates(
  system: boolean,
  units: readonly string[],
): Promise<Map<string, UnitState>> {
  const states = new Map<string, UnitState>();
  if (units.length === 0) return states;
  const argv = systemctl(system, "show", `--property=${PROPERTIES.join(",")}`, "--", ...units);
  const found = await exec(argv, { anyStatus: true }).catch(() => undefined);
  if (found?.status !== 0) return states;
  for (const block of found.stdout.split("\n\n")) {
    const facts = new Map(
      block.split("\n").map((line): [string, string] => {
        const at = line.indexOf("=");
        return [line.slice(0, at), line.slice(at + 1)];
      }),
    );
    const name = facts.get("Id");
    if (!name) continue;
    states.set(name, {
      active: facts.get("ActiveState") ?? "unknown",
      result: facts.get("Result") ?? "unknown",
      restarts: Number(facts.get("NRestarts") ?? 0) || 0,
      mainPid: Number(facts.get("MainPID") ?? 0) || null,
    });
  }
  return states;
}
