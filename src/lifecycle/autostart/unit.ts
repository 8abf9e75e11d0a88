import { bootTarget, PLAN_SECTION, type AutostartPlan } from "../../vm/autostart.ts";
import { escapeValue, quoteCommand, quoteWord } from "../../lib/systemd.ts";

/** The service of a VM that is started with the host. */
export interface UnitParts {
  plan: AutostartPlan;
  system: boolean;
  /** Units of VMs with a lower order. */
  after: readonly string[];
}

/** After so many crashes within this time the unit is `failed`: systemd counts the first start, too. */
const MAX_RESTARTS = 10;
const WITHIN_SECONDS = 600;

/** How long `vm stop` may take to kill a guest after its time limit. */
const KILL_SECONDS = 60;

const formatUnitSection = (title: string, lines: readonly string[]): string =>
  `[${title}]\n${lines.join("\n")}\n`;

/** The arguments of the unit's commands. */
const quoteUnitCommand = ({ program, directory }: AutostartPlan, ...words: string[]): string =>
  quoteCommand([program, "-d", directory, "autostart", ...words]);

/**
 * qemu is the main process, so that nothing else stays: the start command exits once qemu runs, and leaves its pid. The
 * stop command also runs after qemu has exited by itself. Its status tells whether that was a crash, which the status of
 * qemu cannot: 0 also after SIGTERM, and SIGKILL may be a `stop --force` (systemd.service(5), ExecStop=).
 */
export function buildUnit({ plan, system, after }: UnitParts): string {
  const { directory, guest, delaySeconds, wait, stopSeconds, restart, env, uid, working } = plan;
  const name = guest === "" ? "VM" : `VM ${guest}`;
  // A filesystem of a user's manager is not its to mount.
  const mounts = [...new Set([directory, working])].map(quoteWord).join(" ");
  const host = system
    ? [
        "Wants=network-online.target",
        "After=network-online.target remote-fs.target",
        `RequiresMountsFor=${mounts}`,
      ]
    : [];
  const stop = quoteUnitCommand(plan, "stop", `--timeout=${stopSeconds}`);
  return [
    "# Written by `autostart on`, which also removes it: autostart off",
    formatUnitSection("Unit", [
      `Description=${escapeValue(`${name} in ${directory}`)}`,
      ...host,
      ...(after.length > 0 ? [`After=${after.join(" ")}`] : []),
      `StartLimitIntervalSec=${WITHIN_SECONDS}`,
      `StartLimitBurst=${MAX_RESTARTS + 1}`,
    ]),
    formatUnitSection("Service", [
      "Type=forking",
      "RuntimeDirectory=vm-autostart/%i",
      "RuntimeDirectoryMode=0700",
      "PIDFile=%t/vm-autostart/%i/pid",
      ...(system && uid !== undefined ? [`User=${uid}`] : []),
      ...Object.entries(env).map(([key, value]) => `Environment=${quoteWord(`${key}=${value}`)}`),
      `ExecStart=${quoteUnitCommand(
        plan,
        "start",
        ...(delaySeconds > 0 ? [`--delay=${delaySeconds}`] : []),
        ...(wait === null ? [] : [`--wait=${wait}`]),
      )}`,
      `ExecStop=${stop}`,
      // Also if the start is interrupted while it waits for the guest.
      `ExecStopPost=${stop}`,
      // Programs that serve a network are shared by VMs.
      "KillMode=process",
      "SuccessExitStatus=KILL",
      `Restart=${restart ? "on-failure" : "no"}`,
      "RestartSec=1",
      // A start has limits of its own, and may wait for the guest.
      "TimeoutStartSec=infinity",
      `TimeoutStopSec=${stopSeconds + KILL_SECONDS}`,
    ]),
    formatUnitSection("Install", [`WantedBy=${bootTarget(system)}`]),
    formatUnitSection(PLAN_SECTION, [`Plan=${JSON.stringify(plan)}`]),
  ].join("\n");
}
