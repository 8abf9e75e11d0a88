import { closeSync, openSync } from "node:fs";
import { hasErrno, VmError } from "../lib/errors.ts";
import { callerUid, findUserName } from "../lib/trust.ts";
import { describeHolder, findTapHolder, readCwd } from "../process/holders.ts";
import { setInterface } from "../process/libc.ts";
import { attributeOf, freeName, hasDevice, NET_DEVICES, upCommand, type DeviceProblem } from "./link.ts";

/**
 * @param own working directory of this VM's qemu, which may have the device still: of a card that is not there any more
 * @throws 69 unless a tap device exists that this user may open, 75 if another process has it
 */
export function requireTap(device: string, own: string): void {
  const problem = findTapProblem(device);
  if (problem) throw new VmError("unavailable", problem.text, { hint: problem.fix });
  if (!isTapBusy(device)) return;
  const holder = findTapHolder(device);
  if (holder && readCwd(holder.pid) === own) return;
  throw busyTap(device, holder && describeHolder(holder));
}

export const busyTap = (device: string, holder: string | undefined): VmError =>
  new VmError("busy", `the tap device ${device} is in use${holder ? ` by ${holder}` : ""}`, {
    hint: `each card needs one of its own: ${wordsFor(freeName("tap")).create}`,
  });

/** Does another process have it open? Only that is looked for here: what else is wrong with it, qemu reports. */
function isTapBusy(device: string): boolean {
  let fd: number | undefined;
  try {
    fd = openSync("/dev/net/tun", "r+");
    setInterface(fd, device);
    return false;
  } catch (error) {
    return hasErrno(error, "EBUSY");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function wordsFor(device: string): { user: string; create: string } {
  const user = findUserName(callerUid()).replace(/^uid /, "");
  const create = `sudo ip tuntap add dev ${device} mode tap user ${user} && ${upCommand(device)}`;
  return { user, create };
}

/** Why a tap device cannot be used (attributes: drivers/net/tun.c); undefined if it can. */
export function findTapProblem(device: string, devices = NET_DEVICES): DeviceProblem | undefined {
  const { user, create } = wordsFor(device);
  if (!hasDevice(device, devices))
    return { text: `there is no tap device ${device}`, fix: `create it: ${create}` };
  if (attributeOf(device, "tun_flags", devices) === undefined)
    return {
      text: `${device} is not a tap device`,
      fix: `create one, and use its name: ${wordsFor(freeName("tap", devices)).create}`,
    };
  const owner = attributeOf(device, "owner", devices);
  if (callerUid() === 0 || owner === String(callerUid())) return undefined;
  return {
    text: `the tap device ${device} does not belong to ${user}`,
    fix: `create it for this user: sudo ip tuntap del dev ${device} mode tap && ${create}`,
  };
}
