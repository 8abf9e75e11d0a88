import { CRONS } from "../../lib/cron.ts";
import { callerUid } from "../../lib/trust.ts";
import { findProgram } from "../../process/exec.ts";
import { runsProcess } from "../../process/holders.ts";
import { findLingerProblem, isSystemdRunning } from "../../vm/systemd.ts";
import type { Check } from "./check.ts";

/** What starts VMs with the host. */
export function checkAutostart(): Check {
  const common = { name: "autostart", needed: false, use: "autostart" };
  if (isSystemdRunning()) {
    const problem = callerUid() === 0 ? undefined : findLingerProblem();
    return problem === undefined
      ? { ...common, state: "ok", detail: "systemd" }
      : { ...common, state: "limited", detail: problem };
  }
  if (!findProgram("crontab"))
    return { ...common, state: "missing", detail: "systemd is not running, and there is no crontab" };
  if (runsProcess(CRONS) === false)
    return { ...common, state: "missing", detail: "neither systemd nor cron is running" };
  return {
    ...common,
    state: "limited",
    detail: "systemd is not running: by cron, without restart and orderly stop",
  };
}
