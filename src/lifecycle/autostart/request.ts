import { usageError, VmError } from "../../lib/errors.ts";
import { parseAction } from "../../lib/action.ts";
import { parseSeconds } from "../../lib/seconds.ts";
import { either } from "../../lib/text.ts";
import { MAX_ORDER, READY_EVENTS, type Manager } from "../../vm/autostart.ts";
import { AUTOSTART_ACTIONS, type AutostartAction } from "../choices.ts";

export interface AutostartRequest {
  action: AutostartAction;
  /** off: that of a VM that may no longer exist. */
  directory: string | undefined;
  order: number;
  delaySeconds: number;
  restart: boolean;
  wait: (typeof READY_EVENTS)[number] | null;
  /** Absent: by the caller's user id, and whether systemd runs. */
  manager: Manager | undefined;
  /** Absent: STOP_TIMEOUT. */
  timeoutSeconds: number | undefined;
  json: boolean;
}

const DEFAULT_ORDER = 50;

/** The options of each action. */
const OPTIONS: Readonly<Record<AutostartAction, readonly string[]>> = {
  list: ["json"],
  on: ["order", "delay", "restart", "wait", "user", "system", "cron", "timeout"],
  off: ["directory"],
  start: ["delay", "wait"],
  stop: ["timeout"],
  "start-all": [],
};

/** @throws 64 */
export function parseAutostart(args: Record<string, unknown>): AutostartRequest {
  const action = parseAction("autostart", (args.action as string | undefined) ?? "list", AUTOSTART_ACTIONS);
  const given = Object.keys(args).filter(
    (name) => args[name] !== undefined && args[name] !== false && name !== "_" && name !== "action",
  );
  const surplus = given.find((name) => !OPTIONS[action].includes(name));
  if (surplus !== undefined)
    throw new VmError(
      "usage",
      surplus === "directory"
        ? `autostart ${action}: takes no directory: '${args.directory}'`
        : `autostart ${action}: --${surplus} is for ${either(
            AUTOSTART_ACTIONS.filter((name) => OPTIONS[name].includes(surplus)),
          )}`,
    );
  const managers = (["system", "user", "cron"] as const).filter((name) => args[name] === true);
  if (managers.length > 1)
    throw new VmError(
      "usage",
      `autostart: ${managers.map((name) => `--${name}`).join(" and ")} cannot be combined`,
    );
  const wait = args.wait === undefined ? null : READY_EVENTS.find((name) => name === args.wait);
  if (wait === undefined)
    throw usageError(`--wait: '${args.wait}' is not allowed`, `allowed: ${either(READY_EVENTS)}`);
  return {
    action,
    directory: args.directory as string | undefined,
    order: parseOrder(args.order as string | undefined),
    delaySeconds: parseSeconds("delay", args.delay as string | undefined) ?? 0,
    restart: args.restart === true,
    wait,
    manager: managers[0],
    timeoutSeconds: parseSeconds("timeout", args.timeout as string | undefined, 1),
    json: args.json === true,
  };
}

function parseOrder(text: string | undefined): number {
  if (text === undefined) return DEFAULT_ORDER;
  if (/^\d{1,3}$/.test(text)) return Number(text);
  throw usageError(`--order: '${text}' is not allowed`, `allowed: 0 to ${MAX_ORDER}`);
}
