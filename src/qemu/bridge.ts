import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { reasonOf } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { ProcessError } from "../process/exec.ts";
import { receiveFrom, SENDER_FD } from "../process/receive.ts";
import { freeName, hasDevice, NET_DEVICES, upCommand, type DeviceProblem } from "./link.ts";

/** Where distributions install qemu-bridge-helper. */
const HELPERS = [
  "/usr/lib/qemu",
  "/usr/libexec",
  "/usr/libexec/qemu",
  "/usr/lib64/qemu",
  "/usr/local/libexec",
];
/** Its list of allowed bridges (qemu-bridge-helper.c). */
const ACL = "/etc/qemu/bridge.conf";
const SETUID = 0o4000;

export const findBridgeHelper = (): string | undefined =>
  HELPERS.map((directory) => join(directory, "qemu-bridge-helper")).find((path) =>
    statSync(path, { throwIfNoEntry: false })?.isFile(),
  );

/**
 * Pure: does the list allow a bridge? The last line that names it, or all, decides.
 * @returns undefined if the list includes others
 */
export function isBridgeAllowed(list: string, bridge: string): boolean | undefined {
  let allowed = false;
  for (const line of list.split("\n")) {
    const [word, name] = line.trim().split(/\s+/);
    if (word === "include") return undefined;
    if ((word === "allow" || word === "deny") && (name === "all" || name === bridge))
      allowed = word === "allow";
  }
  return allowed;
}

const createCommand = (bridge: string): string =>
  `sudo ip link add ${bridge} type bridge && ${upCommand(bridge)}`;

/** Why a device is not a bridge; undefined if it is one. */
export function findNoBridge(bridge: string, devices = NET_DEVICES): DeviceProblem | undefined {
  if (hasDevice(join(bridge, "bridge"), devices)) return undefined;
  return hasDevice(bridge, devices)
    ? {
        text: `${bridge} is not a bridge`,
        fix: `create one, and use its name: ${createCommand(freeName("br", devices))}`,
      }
    : { text: `there is no bridge ${bridge}`, fix: `create it: ${createCommand(bridge)}` };
}

/** What prevents cards on a bridge, as far as this user can see. */
export function findBridgeProblems(bridge: string): DeviceProblem[] {
  const none = findNoBridge(bridge);
  // Another bridge is to be named: what this name lacks does not matter.
  if (none && hasDevice(bridge)) return [none];
  const problems = none ? [none] : [];
  const helper = findBridgeHelper();
  if (helper === undefined)
    return [
      ...problems,
      { text: "qemu-bridge-helper is not installed", fix: installHint(PACKAGES["bridge-helper"])! },
    ];
  if (process.getuid!() !== 0 && !isPrivileged(helper))
    problems.push({
      text: `${helper} is neither setuid root nor has the capability`,
      fix: `sudo chmod u+s ${shellQuote(helper)}, or sudo setcap cap_net_admin+ep ${shellQuote(helper)}`,
    });
  const allow = `sudo mkdir -p /etc/qemu && echo "allow ${bridge}" | sudo tee -a ${ACL}`;
  try {
    if (isBridgeAllowed(readFileSync(ACL, "utf8"), bridge) === false)
      problems.push({ text: `${ACL} does not allow ${bridge}`, fix: allow });
  } catch (error) {
    // A list that only root and the setuid helper can read.
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") problems.push({ text: `there is no ${ACL}`, fix: allow });
    else if (code !== "EACCES") problems.push({ text: `cannot read ${ACL}: ${reasonOf(error)}`, fix: allow });
  }
  return problems;
}

/** Setuid root, or with file capabilities (capabilities(7)), whose content is not examined. */
function isPrivileged(path: string): boolean {
  const { mode, uid } = statSync(path);
  return ((mode & SETUID) !== 0 && uid === 0) || hasCapabilities(path);
}

function hasCapabilities(path: string): boolean {
  const result = Bun.which("getcap") && Bun.spawnSync(["getcap", path]).stdout.toString();
  return /cap_net_admin[=+]e?p/.test(result || "");
}

/**
 * Creates a tap device on a bridge, by qemu's helper: the sandbox does not let qemu start it.
 * @returns its descriptor
 * @throws 69 with what to do
 */
export async function openBridge(bridge: string): Promise<number> {
  const helper = findBridgeHelper();
  const received = helper && (await receiveFrom([helper, `--br=${bridge}`, `--fd=${SENDER_FD}`]));
  if (received && received.fd !== undefined) return received.fd;
  const problems = findBridgeProblems(bridge);
  const why = problems.map(({ text }) => text).join("; ");
  const said = received && new ProcessError("", received.result).message.replace(/^: /, "");
  throw new VmError("unavailable", `cannot connect a network card to the bridge ${bridge}: ${why || said}`, {
    hint: problems.map(({ fix }) => fix).join("\n") || undefined,
  });
}
