import { join, resolve } from "node:path";
import { parseSetting } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { warnOnce } from "../lib/log.ts";
import { parseHostForward, type ForwardRule } from "../machine/parse.ts";
import type { Display, DisplayAddress, SharedDisplay } from "../machine/types.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { VNC_FIRST_PORT } from "../qemu/devices/display.ts";
import {
  findPortHolder,
  findPortProblem,
  findUdpPortProblem,
  nextFreePort,
  type PortProblem,
} from "../qemu/ports.ts";
import { MAX_SOCKET_PATH_BYTES } from "../process/unix-socket.ts";
import { replaceVolatile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";
import type { Workdir } from "../store/workdir.ts";
import { effectiveForwards } from "./nics.ts";
import { readTls } from "./tls.ts";
import { LOOPBACK } from "../machine/parse.ts";
import { writeViewerFile } from "./viewer.ts";
import { randomBytes } from "../lib/crypto.ts";

/** Default port; if it is taken, the next free one is used. */
export const DEFAULT_PORT = 5900;

const PROTOCOL = { spice: "SPICE", vnc: "VNC" } as const;

function portTaken(what: string, port: number, hint: string): VmError {
  const holder = findPortHolder(port);
  return new VmError("busy", `${what} ${port} is taken${holder ? ` by ${holder}` : ""}`, { hint });
}

/** Why a port cannot be listened on, naming the process that has it, which qemu's own message does not. */
function portError(
  problem: PortProblem,
  what: string,
  { host, port }: { host: string; port: number },
  hint: string,
): VmError {
  if (problem === "taken") return portTaken(what, port, hint);
  if (problem === "denied")
    return new VmError("cannotCreate", `cannot listen on ${what} ${port}: permission denied`, {
      hint: `${hint}, from 1024 on`,
    });
  return new VmError("noInput", `cannot listen on ${what} ${port}: ${host} is not an address of this host`, {
    hint: "list its addresses: ip address; all of them: leave the address empty",
  });
}

/** Did the user choose the display's port? 5900 in a file counts as the default. */
export const portChosen = (vm: Vm): boolean =>
  vm.origins.PORT.kind === "option" || vm.settings.PORT !== DEFAULT_PORT;

/** Resolves the display: its address, its password, and the viewer's connection file. */
export async function resolveDisplay(
  context: Context,
  vm: Vm,
  work: Workdir,
  capabilities: Capabilities,
): Promise<Display> {
  const { PORT, DISPLAY_PROTOCOL: kind, HOST, SPICE_SOCKET, SPICE_TICKETING } = vm.settings;
  if (PORT === undefined || kind === "none" || (HOST === "" && !SPICE_SOCKET)) return { kind: "none" };
  if (!capabilities[kind]) throw protocolMissing(kind);
  if (!SPICE_TICKETING && !SPICE_SOCKET && !LOOPBACK.test(HOST))
    throw new VmError("config", `refusing SPICE_TICKETING=off: HOST=${HOST} is not a loopback address`, {
      hint: "without a password every host that reaches that address can use the guest's screen and keyboard",
    });
  const display: SharedDisplay = {
    kind,
    at: SPICE_SOCKET ? chooseSocket(work, kind) : choosePort(vm, kind, PORT),
    passwordFile: SPICE_TICKETING ? join(work.dir, WORK.spicePassword) : undefined,
    tls: chooseTls(vm, kind),
  };
  // A newline would be part of the password.
  if (display.passwordFile) replaceVolatile(display.passwordFile, choosePassword(context, vm, kind));
  writeViewerFile(work, display, vm.settings.GUESTNAME);
  return display;
}

function protocolMissing(kind: SharedDisplay["kind"]): VmError {
  const install =
    kind === "spice"
      ? `${installHint(PACKAGES.spice)}\nor use another display: DISPLAY_PROTOCOL=vnc, or -p '' for none`
      : "use another display: DISPLAY_PROTOCOL=spice, or -p '' for none";
  return new VmError("unavailable", `this qemu does not support ${PROTOCOL[kind]}`, {
    hint: install,
  });
}

/** Refuses a chosen display port that is also forwarded. @throws 75 */
export function refusePortTwice(vm: Vm): void {
  const { PORT: port, DISPLAY_PROTOCOL: kind, SPICE_SOCKET } = vm.settings;
  if (port === undefined || kind === "none" || SPICE_SOCKET || !portChosen(vm)) return;
  if (forwardedPorts(effectiveForwards(vm.settings)).includes(port))
    throw new VmError(
      "busy",
      `port ${port} is requested twice: for ${PROTOCOL[kind]} and for a forward`,
      ANOTHER,
    );
}

const ANOTHER = { hint: "choose another one: --port=PORT" };

/** The port if it is free; if the user did not choose it, the next free one. */
function choosePort(vm: Vm, kind: SharedDisplay["kind"], port: number): DisplayAddress {
  const { HOST: host } = vm.settings;
  const name = PROTOCOL[kind];
  if (kind === "vnc" && port < VNC_FIRST_PORT)
    throw new VmError(
      vm.origins.PORT.kind === "option" ? "usage" : "config",
      `VNC cannot listen on port ${port}: its ports start at ${VNC_FIRST_PORT}`,
      ANOTHER,
    );
  refusePortTwice(vm);
  const forwarded = forwardedPorts(effectiveForwards(vm.settings));
  const problem = forwarded.includes(port) ? "taken" : findPortProblem(host, port);
  if (problem === undefined) return { host, port };
  if (problem === "not local") throw portError(problem, `the ${name} port`, { host, port }, ANOTHER.hint);
  const next = portChosen(vm) ? undefined : nextFreePort(host, port, forwarded);
  if (next === undefined) throw portError(problem, `the ${name} port`, { host, port }, ANOTHER.hint);
  return { host, port: next };
}

/** A socket in WORKDIR; viewers connect to it by its whole path, which is limited. */
function chooseSocket(work: Workdir, kind: SharedDisplay["kind"]): DisplayAddress {
  const socket = join(work.dir, kind === "spice" ? WORK.spiceSocket : WORK.vncSocket);
  if (Buffer.byteLength(socket) <= MAX_SOCKET_PATH_BYTES) return { socket };
  throw new VmError("config", `SPICE_SOCKET: the path is too long for a socket: ${socket}`, {
    hint: "move the working files to a directory with a shorter path, or use a port: SPICE_SOCKET=",
  });
}

/** Certificates for SPICE on a port; a Unix socket needs none. */
function chooseTls({ settings, hostdir }: Vm, kind: SharedDisplay["kind"]): SharedDisplay["tls"] {
  const { SPICE_TLS_DIR, SPICE_SOCKET } = settings;
  if (SPICE_TLS_DIR === "" || SPICE_SOCKET) return undefined;
  if (kind === "spice") return readTls(resolve(hostdir, SPICE_TLS_DIR));
  warnOnce("SPICE_TLS_DIR applies to SPICE only: VNC is not encrypted");
  return undefined;
}

/** VNC's password is a DES key (RFC 6143, 7.2.2). */
const VNC_PASSWORD_BYTES = 8;

/** The user's password, from a file or the environment, else a random one. */
function choosePassword(context: Context, vm: Vm, kind: SharedDisplay["kind"]): string {
  const given = context.env.SPICE_PASSWORD ?? "";
  const parsed = parseSetting("SPICE_PASSWORD", given);
  if (!("value" in parsed))
    throw new VmError("config", "SPICE_PASSWORD in the environment is not allowed", {
      hint: `allowed: ${parsed.allowed}`,
    });
  const own = vm.settings.SPICE_PASSWORD || given;
  if (kind === "spice") return own || randomBytes(12).toString("base64url");
  if (Buffer.byteLength(own) > VNC_PASSWORD_BYTES)
    warnOnce(`VNC uses only the first ${VNC_PASSWORD_BYTES} characters of a password`);
  return own || randomBytes(6).toString("base64url");
}

/** TCP ports of the host that are forwarded to the guest. */
const forwardedPorts = (forwards: readonly string[]): number[] =>
  forwards.flatMap((option) => {
    const rule = parseHostForward(option.replace(/^hostfwd=/, ""));
    return rule?.protocol === "tcp" ? [rule.hostPort] : [];
  });

const hostRuleOf = (option: string): ForwardRule | undefined =>
  option.startsWith("hostfwd=") ? parseHostForward(option.slice("hostfwd=".length)) : undefined;

/** Why the host's port of a forward cannot be listened on. */
export async function findForwardProblem(option: string): Promise<PortProblem | undefined> {
  const rule = hostRuleOf(option);
  if (!rule) return undefined;
  const find = rule.protocol === "tcp" ? findPortProblem : findUdpPortProblem;
  return find(rule.hostAddress || "0.0.0.0", rule.hostPort);
}

/** Refuses forwards whose port of the host is taken (75), whose address is not the host's (66), or is denied (73). */
export async function requireFreeForwards(forwards: readonly string[]): Promise<void> {
  for (const option of forwards) {
    const problem = await findForwardProblem(option);
    if (problem === undefined) continue;
    const { protocol, hostAddress: host, hostPort: port } = hostRuleOf(option)!;
    throw portError(
      problem,
      `the forwarded ${protocol} port`,
      { host, port },
      `change the forward ${option}`,
    );
  }
}

/** A forward from a free loopback port to the guest's SSH. */
export function freeSshForward(vm: Vm): string {
  const port = nextFreePort("127.0.0.1", FIRST_SSH_PORT, forwardedPorts(vm.settings.FORWARDS));
  if (port === undefined)
    throw portTaken("every port for SSH", FIRST_SSH_PORT, "choose one: --forward=tcp:127.0.0.1:PORT-:22");
  return `hostfwd=tcp:127.0.0.1:${port}-:22`;
}

const FIRST_SSH_PORT = 2222;
