import { exec, findProgram, lastLineOf } from "../process/exec.ts";

/**
 * Makes a directory read-only in the jail of a running qemu (mount_namespaces(7)): it has created its sockets, and what it
 * would create later could become settings, hooks or jobs of the VM. Files with mounts of their own
 * stay as they are; one that qemu has open for writing by the directory's mount is a reason for EBUSY.
 * For root: in a user's namespace, mount(8) has no capabilities.
 * @param pid of qemu
 * @returns why that failed
 */
export async function sealDirectory(pid: number, directory: string): Promise<string | undefined> {
  const nsenter = findProgram("nsenter");
  if (nsenter === undefined) return "nsenter (util-linux) is not installed";
  const enter = [nsenter, `--target=${pid}`, "--mount", "--pid", "--"];
  const remount = ["mount", "--no-mtab", "--options=remount,bind,ro", directory];
  const result = await exec([...enter, ...remount], {
    anyStatus: true,
    whenOrphaned: "none",
    keepOnInterrupt: true,
  });
  return result.status === 0 ? undefined : lastLineOf(result);
}
