import { define } from "./define.ts";

export default define({
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
