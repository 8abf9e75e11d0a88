import type { Firmware } from "../../machine/types.ts";

/** UEFI as two flash chips: code nobody writes, and the machine's own variables. */
export function buildFirmwareArgs(firmware: Firmware): { args: string[]; machineOptions: string } {
  const chip = (node: string, { path, format }: Firmware["code"], readOnly: boolean): string =>
    JSON.stringify({
      driver: format,
      "node-name": node,
      "read-only": readOnly,
      file: { driver: "file", filename: path, "read-only": readOnly },
    });
  return {
    args: [
      "-blockdev",
      chip("pflash0", firmware.code, true),
      "-blockdev",
      chip("pflash1", firmware.vars, false),
    ],
    machineOptions: ",pflash0=pflash0,pflash1=pflash1",
  };
}
