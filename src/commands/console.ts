import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "console", description: "connect to the running VM's serial console; Ctrl-] disconnects" },
  args: {
    log: { type: "boolean", description: "print the console output since the VM was started" },
    follow: {
      type: "boolean",
      alias: "f",
      description: "with --log: follow the output until the guest is off",
    },
  },
  parse({ log, follow }) {
    if (follow && !log)
      throw new VmError("usage", "console: --follow belongs to --log", {
        hint: `both: ${commandLine("console", "--log", "--follow")}`,
      });
    return { log, follow };
  },
  async run(context, { log, follow }) {
    if (log) {
      const { printConsoleLog } = await import("../guest/console-log.ts");
      return printConsoleLog(context, follow === true);
    }
    const { openConsole } = await import("../guest/console.ts");
    await openConsole(context);
  },
});
