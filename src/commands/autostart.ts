import { AUTOSTART_ACTIONS, WAIT_EVENTS } from "../lifecycle/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "autostart", description: "start the VM with the host, and shut it down in order with it" },
  args: {
    action: {
      type: "positional",
      choices: AUTOSTART_ACTIONS,
      required: false,
      description: "list (default), on or off; start, stop and start-all are for systemd and cron",
    },
    directory: {
      type: "positional",
      kind: "directory",
      valueHint: "DIR",
      required: false,
      description: "off: HOSTDIR of a VM that no longer exists",
    },
    order: {
      type: "string",
      valueHint: "N",
      description: "on: start it after VMs with a lower number, and shut it down before; default: 50",
    },
    delay: {
      type: "string",
      valueHint: "SECONDS",
      description: "on: wait this long first when the host boots",
    },
    restart: {
      type: "boolean",
      description: "on: start it again after a crash, at most 10 times within 10 minutes",
    },
    wait: {
      type: "string",
      choices: WAIT_EVENTS,
      valueHint: "WHAT",
      description: "on: wait for `ssh` or the guest `agent` before VMs with a higher number are started",
    },
    user: { type: "boolean", description: "on: use the user's systemd; default unless root" },
    system: { type: "boolean", description: "on: use the system's systemd; run as HOSTDIR's owner" },
    cron: {
      type: "boolean",
      description: "on: use a line @reboot in the user's crontab; default without systemd",
    },
    timeout: {
      type: "string",
      valueHint: "SECONDS",
      description:
        "on, stop: kill the guest if it has not powered off after this long; default: STOP_TIMEOUT",
    },
    json: { type: "boolean", description: "list: print an array of objects" },
  },
  async parse(args) {
    const { parseAutostart } = await import("../lifecycle/autostart/request.ts");
    return parseAutostart(args);
  },
  async run(context, request) {
    switch (request.action) {
      case "list":
        return (await import("../lifecycle/autostart/list.ts")).listAutostart(context, request.json);
      case "on":
        return (await import("../lifecycle/autostart/switch.ts")).switchOn(context, request);
      case "off":
        return (await import("../lifecycle/autostart/switch.ts")).switchOff(context, request.directory);
      case "start":
        return (await import("../lifecycle/autostart/start.ts")).startForManager(context, request);
      case "start-all":
        return (await import("../lifecycle/autostart/start.ts")).startAll(context);
      case "stop":
        return (await import("../lifecycle/autostart/stop.ts")).stopForManager(
          context,
          request.timeoutSeconds,
        );
    }
  },
});
