import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "completion", description: "print the completion script for a shell" },
  args: {
    shell: { type: "positional", required: true, description: "bash, zsh or fish" },
  },
  async setup({ args }) {
    const { parseShell } = await import("../host/completion.ts");
    parseShell(args.shell);
  },
  async run({ args, data }) {
    const { parseShell, printCompletion } = await import("../host/completion.ts");
    printCompletion(data as Context, parseShell(args.shell));
  },
});
