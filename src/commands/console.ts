import { defineCommand } from "citty";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "console", description: "connect to the running VM's serial console; Ctrl-] disconnects" },
  args: {
    log: { type: "boolean", description: "print the console output since the VM was started" },
    follow: {
      type: "boolean",
      alias: "f",
      description: "with --log: follow the output until the guest is off",
    },
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
