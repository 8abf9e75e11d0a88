import { hostname } from "node:os";
import { basename, join } from "node:path";
import { log } from "../lib/log.ts";
import type { Machine, SharedDisplay } from "../machine/types.ts";
import { buildViewerFile, reachable, TUNNEL } from "../machine/viewer-file.ts";
import { findProgram, start, type Child } from "../process/exec.ts";
import { bracket } from "../qemu/devices/display.ts";
import type { QemuSession } from "../qemu/session.ts";
import { shellQuote } from "../lib/shell.ts";
import { readSmall, replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Present } from "../store/workdir.ts";

/** Addresses that only this host's own programs reach. */
export const LOOPBACK: RegExp = /^(localhost|127(\.\d+){3}|::1)$/;

/** The file that opens a viewer, there while the VM runs. */
export const viewerFile = (work: Present, kind: SharedDisplay["kind"]): string =>
  join(work.dir, kind === "spice" ? WORK.spiceViewer : WORK.vncViewer);

/** Writes it, with the password that the display has. */
export function writeViewerFile(work: Present, display: SharedDisplay, title: string): void {
  const password = display.passwordFile && readSmall(display.passwordFile);
  replaceFile(viewerFile(work, display.kind), buildViewerFile(display, password, title));
}

/** `by SPICE on localhost:5900` */
export const describeAddress = ({ kind, at, tls }: SharedDisplay): string =>
  `by ${kind.toUpperCase()}${tls ? " (TLS)" : ""} on ${"socket" in at ? at.socket : `${bracket(at.host)}:${at.port}`}`;

/** Can a viewer be opened here? One for VNC knows no sockets. */
export const hasViewer = ({ env }: Context, { kind, at }: SharedDisplay): boolean =>
  Boolean(env.DISPLAY || env.WAYLAND_DISPLAY) &&
  (kind === "spice" || "port" in at) &&
  findProgram("remote-viewer") !== undefined;

/**
 * How to look at a screen, here and from another machine: lines for people.
 * @param host this machine's name, as another one may know it
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
  const here = `here: remote-viewer ${shellQuote(file)}`;
  const tunnel = (from: string, to: string): string =>
    `from home: ssh -L ${shellQuote(`${from}:${to}`)} ${there}`;
  if ("socket" in at) {
    const first = tunnel(String(TUNNEL.port), at.socket);
    if (kind === "vnc") return [first, `  and there: ${copy}`];
    const secret = passwordFile ? `; the password is in ${passwordFile}` : "";
    return [here, first, `  and there: remote-viewer spice://${TUNNEL.host}:${TUNNEL.port}${secret}`];
  }
  const name = reachable(at.host);
  if (!LOOPBACK.test(name)) return [here, `from home: ${copy}`];
  const address = `${bracket(name)}:${at.port}`;
  // ssh itself listens on localhost; any other name in the file must lead to the tunnel, too.
  const listen = name === "localhost" ? String(at.port) : address;
  return [here, tunnel(listen, address), `  and there: ${copy}`];
}

/** Opens a viewer in a desktop session, where it may; elsewhere says how to look. */
export function showScreen(
  context: Context,
  work: Present,
  { display, name }: Machine,
  mayOpen: boolean,
): Child | undefined {
  if (!("at" in display)) {
    log.info(
      `${name} runs without a display; its serial console is kept in ${join(work.dir, WORK.consoleLog)}`,
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
  log.info(`${name} shows its screen ${describeAddress(display)}`);
  for (const line of describeViewing(context, hostname(), file, display)) log.info(`  ${line}`);
  if (display.passwordFile) log.info(`  its password is in ${display.passwordFile}`);
  return undefined;
}

/** A viewer whose guest is off has nothing to show, but a question to ask, and we would wait for it. */
export function endWithGuest(viewer: Child, { ended }: QemuSession): void {
  const closed = viewer.done.then(() => true);
  void ended.then(async () => {
    if (!(await Promise.race([closed, false]))) viewer.kill("SIGTERM");
  });
}
