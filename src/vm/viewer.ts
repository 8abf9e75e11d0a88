import { LOOPBACK } from "../machine/parse.ts";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { log } from "../lib/log.ts";
import type { Machine, SharedDisplay } from "../machine/types.ts";
import { buildViewerFile, reachable, TUNNEL } from "../machine/viewer-file.ts";
import { findProgram, start, type Child } from "../process/exec.ts";
import { bracket } from "../qemu/devices/display.ts";
import type { QemuSession } from "../qemu/session.ts";
import { shellQuote } from "../lib/shell.ts";
import { readSmall } from "../lib/read-file.ts";
import { replaceVolatile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Workdir } from "../store/workdir.ts";

/** Path of the connection file for a viewer (remote-viewer(1)), which exists while the VM runs. */
export const viewerFile = (work: Workdir, kind: SharedDisplay["kind"]): string =>
  join(work.dir, kind === "spice" ? WORK.spiceViewer : WORK.vncViewer);

/** Writes it, with the display's password. */
export function writeViewerFile(work: Workdir, display: SharedDisplay, title: string): void {
  const password = display.passwordFile && readSmall(display.passwordFile);
  replaceVolatile(viewerFile(work, display.kind), buildViewerFile(display, password, title));
}

/** `SPICE on localhost:5900` */
export const describeAddress = ({ kind, at, tls }: SharedDisplay): string =>
  `${kind.toUpperCase()}${tls ? " (TLS)" : ""} on ${"socket" in at ? at.socket : `${bracket(at.host)}:${at.port}`}`;

/** Can a viewer be opened here? VNC viewers do not support Unix sockets. */
export const hasViewer = ({ env }: Context, { kind, at }: SharedDisplay): boolean =>
  Boolean(env.DISPLAY || env.WAYLAND_DISPLAY) &&
  (kind === "spice" || "port" in at) &&
  findProgram("remote-viewer") !== undefined;

/**
 * Lines with commands that open a viewer, here and on another machine.
 * @param host this machine's name
 */
export function describeViewing(
  { env }: Context,
  host: string,
  file: string,
  { kind, at, passwordFile }: SharedDisplay,
): string[] {
  const user = env.USER || env.LOGNAME;
  const there = user ? `${user}@${host}` : host;
  const copy = `scp -q ${shellQuote(`${there}:${file}`)} . && remote-viewer ${basename(file)}`;
  const here = `locally: remote-viewer ${shellQuote(file)}`;
  const tunnel = (from: string, to: string): string =>
    `remotely: ssh -L ${shellQuote(`${from}:${to}`)} ${there}`;
  if ("socket" in at) {
    const first = tunnel(String(TUNNEL.port), at.socket);
    if (kind === "vnc") return [first, `  then: ${copy}`];
    const secret = passwordFile ? `; the password is in ${passwordFile}` : "";
    return [here, first, `  then: remote-viewer spice://${TUNNEL.host}:${TUNNEL.port}${secret}`];
  }
  const name = reachable(at.host);
  if (!LOOPBACK.test(name)) return [here, `remotely: ${copy}`];
  const address = `${bracket(name)}:${at.port}`;
  // ssh listens on localhost; another address in the file must also reach the tunnel.
  const listen = name === "localhost" ? String(at.port) : address;
  return [here, tunnel(listen, address), `  then: ${copy}`];
}

/** Opens a viewer in a desktop session, if it may; else prints how to open one. */
export function showScreen(
  context: Context,
  work: Workdir,
  { display, name }: Machine,
  mayOpen: boolean,
): Child | undefined {
  if (!("at" in display)) {
    log.info(
      `${name} runs without a display; its serial console is logged to ${join(work.dir, WORK.consoleLog)}`,
    );
    return undefined;
  }
  const file = viewerFile(work, display.kind);
  if (mayOpen && hasViewer(context, display))
    return start(["remote-viewer", file], {
      stdout: "ignore",
      stderr: "ignore",
      runAs: "user",
      keepOnInterrupt: true,
    });
  log.info(`${name}: ${describeAddress(display)}`);
  for (const line of describeViewing(context, hostname(), file, display)) log.info(`  ${line}`);
  if (display.passwordFile) log.info(`  password: ${display.passwordFile}`);
  return undefined;
}

/** Closes the viewer with the guest: it would ask a question, and this process would wait for it. */
export function endWithGuest(viewer: Child, { ended }: QemuSession): void {
  const closed = viewer.done.then(() => true);
  void ended.then(async () => {
    if (!(await Promise.race([closed, false]))) viewer.kill("SIGTERM");
  });
}
