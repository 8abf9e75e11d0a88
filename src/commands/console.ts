import { defineCommand } from "citty";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "console", description: "the running VM's serial console in this terminal; Ctrl-] leaves" },
  args: {
    log: { type: "boolean", description: "print what the console has said since the VM was started" },
    follow: { type: "boolean", alias: "f", description: "with --log: go on until the guest is off" },
  },
  setup({ args }) {
    if (args.follow && !args.log)
      throw new VmError("usage", "console: --follow belongs to --log", {
        hint: `both: ${commandLine("console", "--log", "--follow")}`,
      });
  },
  async run({ args, data }) {
    if (args.log) {
      const { printConsoleLog } = await import("../guest/console-log.ts");
      return printConsoleLog(data as Context, args.follow === true);
    }
    const { openConsole } = await import("../guest/console.ts");
    await openConsole(data as Context);
  },
});
