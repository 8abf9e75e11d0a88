/**
 * Builds the command line of a qemu without a guest: `-machine none` with a QMP socket. Its block jobs copy images in the
 * same way as those of a running VM.
 * @param socket relative to the working directory
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

/** Identifies such a process. */
const BLOCKS_NAME = "vm-blocks";

/** Is this the command line of such a process? It may start with `setpriv`. */
export function isBlocksArgv(argv: readonly string[]): boolean {
  const at = argv.indexOf("-name");
  return at > 0 && argv[at + 1] === BLOCKS_NAME && argv[argv.indexOf("-machine") + 1] === "none";
}
