import { define } from "./define.ts";

export default define({
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
  async parse({ recursive, preserve, legacy, user, _: words }) {
    const { parseCopy } = await import("../guest/ssh.ts");
    const flags = [recursive && "-r", preserve && "-p", legacy && "-O"].filter(
      (flag) => typeof flag === "string",
    );
    return { paths: parseCopy(words), flags, user };
  },
  async run(context, { paths, flags, user }) {
    const { copyByScp } = await import("../guest/ssh.ts");
    await copyByScp(context, paths, flags, user);
  },
});
