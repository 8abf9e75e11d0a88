import { VmError } from "../lib/errors.ts";
import type { Machine } from "../machine/types.ts";
import { findExcess, planArgv, type Excess } from "../qemu/limits.ts";
import { refusePortTwice } from "./display.ts";
import type { Vm } from "./find.ts";

const HINT: Record<Excess["what"], string> = {
  processors: "ask for fewer: --cores=N --sockets=N",
  "PCI devices":
    "put disks on a bus that takes many for one: --disks=SCSI=SIZE,… (64 each controller) or AHCI (6); or leave out shares",
};

function excessError(command: string, { what, wanted, most }: Excess): VmError {
  return new VmError(
    "usage",
    `cannot ${command}: the machine would have ${wanted} ${what}, and qemu gives it ${most}`,
    {
      hint: HINT[what],
    },
  );
}

/** Refuses a machine that qemu would not build. @throws 64 */
export function refuseExcess(command: string, machine: Machine, argv: readonly string[]): void {
  const excess = findExcess(machine, argv);
  if (excess) throw excessError(command, excess);
}

/**
 * The same before a VM is made, as far as its machine is known then.
 * @throws 64 for too much, 75 for a port that is wanted twice
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
    // Without media there is no mirror.
    shares: settings.SHARES.filter(({ path }) => !path.startsWith("@MIRROR@")).length,
    display: settings.PORT === undefined ? "none" : settings.DISPLAY_PROTOCOL,
  });
  const excess = findExcess(plan, argv);
  if (excess) throw excessError("create the VM", excess);
}
