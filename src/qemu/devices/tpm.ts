import type { Tpm } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";

/**
 * A TPM device without a PCI place, and its connection to swtpm's control channel (qemu's docs/specs/tpm.rst).
 * @param fd the descriptor that qemu inherits, unless swtpm listens on a socket
 */
export const buildTpmArgs = ({ device, socket }: Tpm, fd: number): string[] => [
  "-chardev",
  `socket,id=tpm0-control,${socket === undefined ? `fd=${fd}` : `path=${escapeCommas(socket)}`}`,
  "-tpmdev",
  "emulator,id=tpm0,chardev=tpm0-control",
  "-device",
  `${device},tpmdev=tpm0`,
];

/**
 * Command line of swtpm(8), to be started in the directory of its state: it cannot escape a comma in a path. It exits with its
 * data connection, that is, with qemu.
 * @param control its control channel: `clientfd=N`, or `path=…`
 */
export const buildSwtpmArgv = (control: string): string[] => [
  "swtpm",
  "socket",
  "--tpm2",
  "--tpmstate",
  "dir=.,mode=0600",
  "--ctrl",
  `type=unixio,${control}`,
  "--terminate",
];

const SCRIPT_SOCKET = "swtpm.sock";

/** The TPM of a machine that is started by hand: swtpm listens in the directory of its state, which has mode 0700. */
export const tpmByHand = (tpm: Tpm, directory: string): { tpm: Tpm; lines: string[] } => {
  const socket = `${directory}/${SCRIPT_SOCKET}`;
  const argv = buildSwtpmArgv(`path=${SCRIPT_SOCKET},mode=0600`);
  return {
    tpm: { ...tpm, socket },
    lines: [
      `rm -f ${socket}`,
      `(cd ${directory} && exec ${argv.join(" ")}) &`,
      `until [ -S ${socket} ]; do kill -0 $! && sleep 0.1 || exit; done`,
    ],
  };
};
