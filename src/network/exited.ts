import { join } from "node:path";
import { realPath, readSmall } from "../lib/read-file.ts";
import { findByArgument, readCwd } from "../process/holders.ts";
import { CONFIG_OPTION, FILES } from "./lan.ts";
import { networksDirectory, type RuntimePlace } from "./place.ts";

/** Prefix of the short name: pasta(1) is passt by another name, which may execute `passt.avx2`. */
const PASTA = "pas";

/** A program that serves a network among VMs; `network`: all of them. */
export type LanProgram = "dnsmasq" | "pasta" | "network";

/**
 * Programs of a network with running members that have exited, by the paths in their arguments. Nothing is locked or
 * started. The next member that joins has those started again that are not the network itself.
 */
export function findExitedOfLan(place: RuntimePlace, name: string): LanProgram[] {
  const directory = realPath(join(networksDirectory(place), name));
  if (directory === undefined || readCwd(Number(readSmall(join(directory, FILES.ready)))) !== directory)
    return ["network"];
  const exited: LanProgram[] = [];
  // That of a network which an earlier version started does not say whose it is.
  const configs = [join(directory, FILES.config), FILES.config].map((path) => CONFIG_OPTION + path);
  if (configs.every((option) => findByArgument("dnsmasq", option).length === 0)) exited.push("dnsmasq");
  const outside = readSmall(join(directory, FILES.outside))?.trim() === "on";
  if (outside && findByArgument(PASTA, join(directory, FILES.namespace)).length === 0) exited.push("pasta");
  return exited;
}
