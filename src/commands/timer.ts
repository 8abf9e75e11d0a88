import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "timer", description: "run a command for this VM on a schedule, with systemd or cron" },
  args: {
    "on-calendar": {
      type: "string",
      valueHint: "WHEN",
      description: "set the schedule: hourly, daily, weekly … or as in systemd.time(7); default: hourly",
    },
    print: { type: "boolean", description: "print the service and the timer (default)" },
    install: { type: "boolean", description: "install both units and start the timer" },
    remove: { type: "boolean", description: "stop the timer and remove both units" },
    user: { type: "boolean", description: "use the user's systemd; default unless root" },
    system: { type: "boolean", description: "use the system's systemd; run as HOSTDIR's owner" },
    cron: { type: "boolean", description: "print a crontab line instead" },
    command: {
      type: "positional",
      required: false,
      valueHint: "COMMAND…",
      description: "command to run, with its options; default: backup",
    },
  },
  async setup({ args, data }) {
    const { parseTimer } = await import("../host/timer/timer.ts");
    const { words } = parseTimer(args);
    await (data as Context).checkLine(words);
  },
  async run({ args, data }) {
    const { parseTimer, timerVm } = await import("../host/timer/timer.ts");
    await timerVm(data as Context, parseTimer(args));
  },
});
