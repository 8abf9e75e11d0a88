import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "cp", description: "copy files to or from the guest by ssh; a path there begins with :" },
  args: {
    recursive: { type: "boolean", alias: "r", description: "copy directories, too" },
    preserve: { type: "boolean", alias: "p", description: "keep times and rights" },
    legacy: { type: "boolean", alias: "O", description: "for a guest without sftp: scp's old way" },
    user: { type: "string", valueHint: "NAME", description: "log in as NAME; default: SSH_USER, root" },
    paths: {
      type: "positional",
      valueHint: "SRC… DST",
      description: "files, the last one the target: file :/root/, or :/etc/hosts .",
    },
  },
  async setup({ args }) {
    const { parseCopy } = await import("../guest/ssh.ts");
    parseCopy(args._);
  },
  async run({ args, data }) {
    const { copyByScp } = await import("../guest/ssh.ts");
    const { recursive, preserve, legacy } = args;
    const flags = [recursive && "-r", preserve && "-p", legacy && "-O"].filter((flag) => flag !== undefined);
    await copyByScp(data as Context, args._, flags as string[], args.user);
  },
});
