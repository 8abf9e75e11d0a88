import { COMPLETION_SHELLS } from "../lib/shell.ts";
import { either } from "../lib/text.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "completion", description: "print the completion script for a shell" },
  args: {
    shell: {
      type: "positional",
      choices: COMPLETION_SHELLS,
      required: true,
      description: either(COMPLETION_SHELLS),
    },
  },
  async parse(args) {
    const { parseShell } = await import("../host/completion.ts");
    return parseShell(args.shell);
  },
  async run(context, shell) {
    const { printCompletion } = await import("../host/completion.ts");
    printCompletion(context, shell);
  },
});
