import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "cp", description: "copy files to or from the guest with scp; prefix a guest path with :" },
  args: {
    recursive: { type: "boolean", alias: "r", description: "copy directories recursively" },
    preserve: { type: "boolean", alias: "p", description: "preserve times and permissions" },
    legacy: {
      type: "boolean",
      alias: "O",
      description: "use the old scp protocol, for a guest without sftp",
    },
    user: { type: "string", valueHint: "NAME", description: "log in as NAME; default: SSH_USER, root" },
    paths: {
      type: "positional",
      valueHint: "SRC… DST",
      description: "sources, then the destination: file :/root/, or :/etc/hosts .",
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
