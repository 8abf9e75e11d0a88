import { define } from "./define.ts";

export default define({
  meta: { name: "rename", description: "rename the VM, its directory, its timers and its pushed snapshots" },
  args: {
    name: {
      type: "positional",
      required: true,
      kind: "directory",
      valueHint: "NAME",
      description:
        "new name, beside the old one, or a path; the present name: complete an interrupted rename",
    },
  },
  async parse({ name }, context) {
    const { refuseBeforeOthers } = await import("../lifecycle/rename.ts");
    refuseBeforeOthers(context);
    return { name };
  },
  async run(context, { name }) {
    const { contextOfRenamed, finishRename, renameVm } = await import("../lifecycle/rename.ts");
    const renamed = await renameVm(context, name);
    const { aboutVm } = await import("../lib/command-line.ts");
    using _hints = aboutVm(renamed.to);
    const there = contextOfRenamed(context, renamed);
    await (await import("../host/timer/rename-timers.ts")).renameTimers(there, renamed);
    await (await import("../lifecycle/autostart/rename.ts")).renameAutostart(there, renamed);
    await (await import("../snapshot/remote/rename-remote.ts")).renameRemote(there, renamed);
    await finishRename(renamed);
  },
});
