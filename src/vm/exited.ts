import type { Nic } from "../machine/types.ts";
import { findExitedOfLan } from "../network/exited.ts";
import type { RuntimePlace } from "../network/place.ts";
import { findByArgument } from "../process/holders.ts";
import { passtPidPath } from "../qemu/passt.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import type { Workdir } from "../store/workdir.ts";
import { findQemus } from "./in-use.ts";

/**
 * Programs that served the cards of a running VM and have exited, by the number of the card. Known only of a recorded run,
 * and of processes that this user can see.
 * @param nics those of the running machine on passt and on networks among VMs
 */
export function findExited(place: RuntimePlace, work: Workdir, nics: readonly Nic[]): Map<number, string[]> {
  const exited = new Map<number, string[]>();
  if (!isExitUnrecorded(work.mark) || findQemus(work).length === 0) return exited;
  for (const { number, network } of nics) {
    const programs: string[] =
      network.kind === "net"
        ? findExitedOfLan(place, network.name!)
        : findByArgument("passt", passtPidPath(work.dir, number)).length === 0
          ? ["passt"]
          : [];
    if (programs.length > 0) exited.set(number, programs);
  }
  return exited;
}
