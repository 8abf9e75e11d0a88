import { VmError } from "../lib/errors.ts";
import { define } from "./define.ts";

export default define({
  meta: {
    name: "events",
    description: "show what happened to the VM: runs, pauses, crashes, snapshots, jobs",
  },
  args: {
    all: { type: "boolean", alias: "a", description: "show those of all VMs" },
    follow: {
      type: "boolean",
      alias: "f",
      description: "print further events as they happen, until interrupted",
    },
    lines: {
      type: "string",
      alias: "n",
      valueHint: "N",
      description: "print only the last N; default: all, with --follow 10",
    },
    json: {
      type: "boolean",
      description: "print an object a line: {at, vm, event, how, end, snapshot, job, status}",
    },
  },
  parse(args) {
    const { lines } = args;
    if (lines !== undefined && !/^\d{1,9}$/.test(lines))
      throw new VmError("usage", `--lines: '${lines}' is not a number`);
    return {
      all: args.all === true,
      follow: args.follow === true,
      json: args.json === true,
      lines: lines === undefined ? undefined : Number(lines),
    };
  },
  async run(context, request) {
    const { showEvents } = await import("../vm/events.ts");
    await showEvents(context, request);
  },
});
