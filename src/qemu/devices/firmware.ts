import type { Firmware } from "../../machine/types.ts";

function buildChip(node: string, { path, format }: Firmware["code"], readOnly: boolean): string {
  return JSON.stringify({
    driver: format,
    "node-name": node,
    "read-only": readOnly,
    file: { driver: "file", filename: path, "read-only": readOnly },
  });
}

/** UEFI as two flash chips: read-only code, and the VM's variables. */
export function buildFirmwareArgs({ code, vars, smm }: Firmware): { args: string[]; machineOptions: string } {
  return {
    args: [
      "-blockdev",
      buildChip("pflash0", code, true),
      "-blockdev",
      buildChip("pflash1", vars, false),
      // As qemu's docs/interop/firmware.json asks for `requires-smm`: the guest's kernel cannot write the variables itself.
      ...(smm ? ["-global", "driver=cfi.pflash01,property=secure,value=on"] : []),
    ],
    machineOptions: `${smm ? ",smm=on" : ""},pflash0=pflash0,pflash1=pflash1`,
  };
}
