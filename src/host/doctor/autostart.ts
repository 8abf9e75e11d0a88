import { callerUid } from "../../lib/trust.ts";
import { findProgram } from "../../process/exec.ts";
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
  return findProgram("crontab")
    ? {
        ...common,
        state: "limited",
        detail: "systemd is not running: by cron, without restart and orderly stop",
      }
    : { ...common, state: "missing", detail: "systemd is not running, and there is no crontab" };
}
