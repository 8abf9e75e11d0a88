import { existsSync, statSync } from "node:fs";
import type { Settings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import type { Machine } from "../machine/types.ts";
import { findNetworkRom } from "../qemu/firmware.ts";

/** Network boot of a machine. @throws 66 if the directory does not exist */
export function resolveNetboot({ NETBOOT, NETBOOT_DIR, NETBOOT_FILE }: Settings): Machine["netboot"] {
  if (NETBOOT_DIR !== "" && !(existsSync(NETBOOT_DIR) && statSync(NETBOOT_DIR).isDirectory()))
    throw new VmError("noInput", `NETBOOT_DIR: there is no such directory: ${NETBOOT_DIR}`, {
      hint: "create it, or leave it empty: NETBOOT_DIR=",
    });
  if (NETBOOT === "first" && findNetworkRom() === undefined)
    warnOnce(
      `no network boot program found, without which the network cannot be booted: ${installHint(PACKAGES.netboot)}`,
    );
  return { order: NETBOOT, directory: NETBOOT_DIR || undefined, file: NETBOOT_FILE || undefined };
}
