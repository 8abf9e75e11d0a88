import { define } from "./define.ts";

export default define({
  meta: { name: "completion", description: "print the completion script for a shell" },
  args: {
    shell: { type: "positional", required: true, description: "bash, zsh or fish" },
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
