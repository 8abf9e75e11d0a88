import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "timer", description: "have a command of this VM run at set times, by systemd or cron" },
  args: {
    "on-calendar": {
      type: "string",
      valueHint: "WHEN",
      description: "hourly, daily, weekly … or as in systemd.time(7); default: hourly",
    },
    print: { type: "boolean", description: "show the service and the timer; the default" },
    install: { type: "boolean", description: "write them, and start the timer" },
    remove: { type: "boolean", description: "stop the timer, and remove both" },
    user: { type: "boolean", description: "the caller's own systemd; the default, but for root" },
    system: { type: "boolean", description: "the system's; it runs as HOSTDIR's owner" },
    cron: { type: "boolean", description: "show a line for a crontab instead" },
    command: {
      type: "positional",
      required: false,
      valueHint: "COMMAND…",
      description: "what to run, with its options; default: backup",
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
