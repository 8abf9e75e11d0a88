import { define } from "./define.ts";

export default define({
  meta: { name: "exec", description: "run a program in the guest by its guest agent; no network is needed" },
  args: {
    command: {
      type: "positional",
      valueHint: "CMD [ARG…]",
      description: "the program and its arguments as they are: no shell looks at them",
    },
  },
  async run(context, args) {
    const { execInGuest } = await import("../guest/exec.ts");
    await execInGuest(context, args._);
  },
});
