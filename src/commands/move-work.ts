import { define } from "./define.ts";

export default define({
  meta: {
    name: "move-work",
    description: "move the working files, such as out of a directory that a reboot empties",
  },
  args: {
    directory: {
      type: "positional",
      kind: "directory",
      valueHint: "DIR",
      required: false,
      description: "directory to keep them in; default: the VM's own directory, as with --inplace",
    },
  },
  async run(context, { directory }) {
    const { moveWork } = await import("../lifecycle/move-work.ts");
    await moveWork(context, directory);
  },
});
