import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { parseSetting } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { parseHostForward } from "../machine/parse.ts";
import type { Display } from "../machine/types.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { findPortHolder, isPortFree, isUdpPortFree, nextFreePort } from "../qemu/ports.ts";
import { replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Present, Vm } from "./open.ts";

/** The port that counts as not chosen: the next free one will do. */
export const DEFAULT_SPICE_PORT = 5900;

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/;

function portTaken(what: string, port: number, hint: string): VmError {
  const holder = findPortHolder(port);
  return new VmError("busy", `${what} ${port} is taken${holder ? ` by ${holder}` : ""}`, { hint });
}

/** Did the user choose the SPICE port? 5900 in a file is only the default written down. */
export const portChosen = (vm: Vm): boolean =>
  vm.origins.PORT.kind === "option" || vm.settings.PORT !== DEFAULT_SPICE_PORT;

/** Settles the screen: its port, its password, and the file that opens a viewer. */
export async function resolveDisplay(
  context: Context,
  vm: Vm,
  work: Present,
  capabilities: Capabilities,
): Promise<Display> {
  const { HOST, PORT, SPICE_TICKETING } = vm.settings;
  if (PORT === undefined) return { kind: "none" };
  if (!capabilities.spice) {
    const message = "this qemu has no SPICE";
    if (portChosen(vm))
      throw new VmError("unavailable", `${message}, but a port for it was chosen`, {
        hint: "install qemu's SPICE modules, or turn the display off: --port=",
      });
    warnOnce(`${message}: the guest runs without a display (its modules are a package of their own)`);
    return { kind: "none" };
  }
  if (!SPICE_TICKETING && !LOOPBACK.test(HOST))
    throw new VmError("config", `SPICE_TICKETING=off is refused: HOST=${HOST} is no loopback address`, {
      hint: "without a password anybody who reaches that address has the guest's screen and keyboard",
    });
  let port: number | undefined = PORT;
  const forwarded = forwardedPorts(vm.settings.USENETDEV ? vm.settings.FORWARDS : []);
  if (forwarded.includes(PORT) && portChosen(vm))
    throw new VmError("busy", `the port ${PORT} is wanted twice: for SPICE and for a forward`, {
      hint: "choose another one: --port=PORT",
    });
  if (forwarded.includes(PORT) || !isPortFree(HOST, PORT)) {
    if (portChosen(vm)) throw portTaken("the SPICE port", PORT, "choose another one: --port=PORT");
    port = nextFreePort(HOST, PORT, forwarded);
    if (port === undefined) throw portTaken("the SPICE port", PORT, "choose another one: --port=PORT");
  }
  const passwordFile = SPICE_TICKETING ? join(work.dir, WORK.spicePassword) : undefined;
  const password = choosePassword(context, vm);
  // qemu takes the file as it is: no newline.
  if (passwordFile) replaceFile(passwordFile, password);
  const viewer = ["[virt-viewer]", "type=spice", `host=${HOST}`, `port=${port}`];
  if (passwordFile) viewer.push(`password=${keyFileValue(password)}`);
  replaceFile(
    join(work.dir, WORK.spiceViewer),
    [...viewer, `title=${vm.settings.GUESTNAME.replaceAll(/\p{Cc}/gu, " ")}`, ""].join("\n"),
  );
  return { kind: "spice", host: HOST, port, passwordFile };
}

/** The user's own, from a file or the environment, else a new one. */
function choosePassword(context: Context, vm: Vm): string {
  const given = context.env.SPICE_PASSWORD ?? "";
  const parsed = parseSetting("SPICE_PASSWORD", given);
  if (!("value" in parsed))
    throw new VmError("config", "SPICE_PASSWORD in the environment is not allowed", {
      hint: `allowed: ${parsed.allowed}`,
    });
  return vm.settings.SPICE_PASSWORD || given || randomBytes(12).toString("base64url");
}

/** TCP ports of the host that lead to the guest. */
const forwardedPorts = (forwards: readonly string[]): number[] =>
  forwards.flatMap((option) => {
    const rule = parseHostForward(option.replace(/^hostfwd=/, ""));
    return rule?.protocol === "tcp" ? [rule.hostPort] : [];
  });

/** A value in a key file (GKeyFile): backslashes and leading blanks are escaped. */
const keyFileValue = (text: string): string =>
  text.replaceAll("\\", String.raw`\\`).replace(/^ /, String.raw`\s`);

/** Refuses when a port that is to be forwarded is taken: qemu's own message does not say by whom. */
export async function requireFreeForwards(forwards: readonly string[]): Promise<void> {
  for (const option of forwards) {
    const rule = option.startsWith("hostfwd=")
      ? parseHostForward(option.slice("hostfwd=".length))
      : undefined;
    if (!rule) continue;
    const host = rule.hostAddress || "0.0.0.0";
    const free =
      rule.protocol === "tcp" ? isPortFree(host, rule.hostPort) : await isUdpPortFree(host, rule.hostPort);
    if (!free)
      throw portTaken(`the forwarded ${rule.protocol} port`, rule.hostPort, `change the forward ${option}`);
  }
}

/** A forward of a free port of the loopback to the guest's SSH. */
export function freeSshForward(vm: Vm): string {
  const port = nextFreePort("127.0.0.1", FIRST_SSH_PORT, forwardedPorts(vm.settings.FORWARDS));
  if (port === undefined)
    throw portTaken("every port for SSH", FIRST_SSH_PORT, "name one: --forward=tcp:127.0.0.1:PORT-:22");
  return `hostfwd=tcp:127.0.0.1:${port}-:22`;
}

const FIRST_SSH_PORT = 2222;
