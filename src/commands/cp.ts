import { define } from "./define.ts";

export default define({
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
