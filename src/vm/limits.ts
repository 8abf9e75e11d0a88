import { VmError } from "../lib/errors.ts";
import type { Machine } from "../machine/types.ts";
import { findExcess, planArgv, type Excess } from "../qemu/limits.ts";
import { refusePortTwice } from "./display.ts";
import type { Vm } from "./find.ts";

const HINT: Record<Excess["what"], string> = {
  processors: "use fewer: --cores=N --sockets=N",
  "PCI devices":
    "use a bus with several disks per controller: --disks=SCSI=SIZE,… (64 per controller) or AHCI (6); or remove shares",
};

function excessError(command: string, { what, wanted, most }: Excess): VmError {
  return new VmError(
    "usage",
    `cannot ${command}: the machine would have ${wanted} ${what}, qemu's limit is ${most}`,
    {
      hint: HINT[what],
    },
  );
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
export function refuseImpossible(
  vm: Vm,
  disks: readonly { bus: Machine["disks"][number]["bus"] }[],
  cd: boolean,
  seed: boolean,
): void {
  const { settings } = vm;
  refusePortTwice(vm);
  const plan = {
    arch: settings.QEMUARCH,
    sockets: settings.SOCKETS,
    cores: settings.CORES,
  };
  const argv = planArgv({
    ...plan,
    uefi: settings.UEFI,
    disks: [...disks, ...settings.IMAGES],
    cd,
    seed,
    network: settings.USENETDEV,
    // Without external media there is no mirror share.
    shares: settings.SHARES.filter(({ path }) => !path.startsWith("@MIRROR@")).length,
    display: settings.PORT === undefined ? "none" : settings.DISPLAY_PROTOCOL,
  });
  const excess = findExcess(plan, argv);
  if (excess) throw excessError("create the VM", excess);
}
