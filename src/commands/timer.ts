import { define } from "./define.ts";

export default define({
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
  async parse(args, context) {
    const { parseTimer } = await import("../host/timer/timer.ts");
    const request = parseTimer(args);
    await context.checkLine(request.words);
    return request;
  },
  async run(context, request) {
    const { timerVm } = await import("../host/timer/timer.ts");
    await timerVm(context, request);
  },
});
