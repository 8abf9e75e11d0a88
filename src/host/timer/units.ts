import { escapePath, escapeValue, quoteCommand, quoteWord } from "../../lib/systemd.ts";
import { sha256 } from "../../lib/crypto.ts";

export interface TimerPlan {
  prog: string;
  hostdir: string;
  /** Name of the VM, for the description. */
  guest: string;
  /** Program and arguments. */
  argv: readonly string[];
  /** The command's own name: `backup`. */
  kind: string;
  when: string;
  /** Environment of the command. */
  env: Readonly<Record<string, string>>;
  /** User of a system unit; absent for root. */
  system: boolean;
  uid?: number | undefined;
}

export interface Unit {
  name: string;
  text: string;
}

/** Maximum length of a unit name with its suffix (systemd.unit(5)). */
const MAX_NAME = 255;

/** `vm-backup-srv-my\x20vm`; a hash if the path is too long for a name. */
export function unitName({ prog, kind, hostdir }: Pick<TimerPlan, "prog" | "kind" | "hostdir">): string {
  const name = `${prog}-${kind}-${escapePath(hostdir)}`;
  if (name.length + ".service".length <= MAX_NAME) return name;
  return `${prog}-${kind}-${sha256(hostdir).slice(0, 32)}`;
}

const formatSection = (title: string, lines: readonly string[]): string =>
  `[${title}]\n${lines.join("\n")}\n`;

/** The service that runs the command, and the timer that starts it. */
export function buildUnits(plan: TimerPlan): { service: Unit; timer: Unit } {
  const { prog, kind, guest, hostdir, argv, when, env, system, uid } = plan;
  const name = unitName(plan);
  const what = escapeValue(`${prog} ${kind} of ${guest === "" ? "the VM" : guest} in ${hostdir}`);
  const service = formatSection("Service", [
    "Type=oneshot",
    ...(uid === undefined ? [] : [`User=${uid}`]),
    ...Object.entries(env).map(([key, value]) => `Environment=${quoteWord(`${key}=${value}`)}`),
    `ExecStart=${quoteCommand(argv)}`,
    "Nice=10",
    "IOSchedulingClass=idle",
  ]);
  const timer = formatSection("Timer", [
    `OnCalendar=${escapeValue(when)}`,
    "RandomizedDelaySec=5min",
    "Persistent=true",
  ]);
  const install = formatSection("Install", ["WantedBy=timers.target"]);
  // HOSTDIR may be on another machine.
  const after = system ? ["After=remote-fs.target"] : [];
  return {
    service: {
      name: `${name}.service`,
      text: `${formatSection("Unit", [`Description=${what}`, ...after])}\n${service}`,
    },
    timer: {
      name: `${name}.timer`,
      text: `${formatSection("Unit", [`Description=When: ${what}`])}\n${timer}\n${install}`,
    },
  };
}
