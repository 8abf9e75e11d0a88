import { VmError } from "../lib/errors.ts";
import { LAYOUTS, type DiskBus, type Machine } from "../machine/types.ts";
import type { NumberedDisk } from "../qemu/devices/disk.ts";
import { findExcess, type Excess } from "../qemu/limits.ts";
import { refusePortTwice } from "./display.ts";
import type { Vm } from "./find.ts";

const SHARED_BUS =
  "use a bus with several disks per controller: --disks=SCSI=SIZE,… (64 per controller) or AHCI (6)";

const HINT: Record<Excess["what"], string> = {
  processors: "use fewer: --cores=N --sockets=N",
  "PCI devices": `${SHARED_BUS}; or remove shares`,
  "places for disks": SHARED_BUS,
  "USB disks": "use another bus, such as --disks=SCSI=SIZE,…",
  shares: "remove shares, or share a directory above several",
};

function excessError(command: string, { what, wanted, most }: Excess): VmError {
  return new VmError(
    "usage",
    `cannot ${command}: the machine would have ${wanted} ${what}, the limit is ${most}`,
    {
      hint: HINT[what],
    },
  );
}

/** Refuses processors, shares, and disks beyond the limits of a VM's machine. @throws 64 */
export function refuseTooManyDisks(
  command: string,
  { settings }: Pick<Vm, "settings">,
  disks: readonly NumberedDisk[],
): void {
  const excess = findExcess(
    {
      arch: settings.QEMUARCH,
      sockets: settings.SOCKETS,
      cores: settings.CORES,
      layout: settings.LAYOUT,
      disks,
      controllerPlaces: settings.CONTROLLER_PLACES,
      shares: settings.SHARES,
    },
    [],
  );
  if (excess) throw excessError(command, excess);
}

/** Refuses a machine beyond qemu's limits. @throws 64 */
export function refuseExcess(command: string, machine: Machine, argv: readonly string[]): void {
  const excess = findExcess(machine, argv);
  if (excess) throw excessError(command, excess);
}

/**
 * The same before a VM is created, as far as its machine is known.
 * @throws 64 beyond the limits, 75 for a port that is requested twice
 */
export function refuseImpossible(vm: Vm, disks: readonly { bus: DiskBus }[]): void {
  const { settings } = vm;
  refusePortTwice(vm);
  const excess = findExcess(
    {
      arch: settings.QEMUARCH,
      sockets: settings.SOCKETS,
      cores: settings.CORES,
      layout: LAYOUTS.at(-1)!,
      disks: [...disks, ...settings.IMAGES].map(({ bus }, number) => ({ bus, number })),
      controllerPlaces: [],
      // Without external media there is no mirror share.
      shares: settings.SHARES.filter(({ path }) => !path.startsWith("@MIRROR@")),
    },
    [],
  );
  if (excess) throw excessError("create the VM", excess);
}
