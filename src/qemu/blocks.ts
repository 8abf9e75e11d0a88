/**
 * The command that opens images without a guest: a machine that has nothing, and answers on a QMP socket. Its block
 * jobs are those of a running VM, so that an image is copied in the same way whether the VM runs or not.
 * @param socket relative to where it is started
 */
export const buildBlocksArgv = (binary: string, socket: string): string[] => [
  binary,
  "-name",
  BLOCKS_NAME,
  "-nodefaults",
  "-no-user-config",
  "-sandbox",
  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  "-machine",
  "none",
  "-display",
  "none",
  "-S",
  "-chardev",
  `socket,id=qmp0,path=${socket},server=on,wait=off`,
  "-mon",
  "chardev=qmp0,mode=control",
];

/** By this a process is known for one of these. */
const BLOCKS_NAME = "vm-blocks";

/** Was a process started with such a command? By way of `nice`, say. */
export function isBlocksArgv(argv: readonly string[]): boolean {
  const at = argv.indexOf("-name");
  return at > 0 && argv[at + 1] === BLOCKS_NAME && argv[argv.indexOf("-machine") + 1] === "none";
}
