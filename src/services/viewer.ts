import { join } from "node:path";
import type { SharedDisplay } from "../machine/types.ts";
import { buildViewerFile } from "../machine/viewer-file.ts";
import { findProgram } from "../process/exec.ts";
import { bracket } from "../qemu/devices/display.ts";
import { shellQuote } from "../qemu/text.ts";
import { readSmall, replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Present } from "./open.ts";

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

/** Can a viewer be opened here? */
export const hasViewer = ({ env }: Context): boolean =>
  Boolean(env.DISPLAY || env.WAYLAND_DISPLAY) && findProgram("remote-viewer") !== undefined;

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
  const copied = file.slice(file.lastIndexOf("/") + 1);
  const copy = `scp -q ${shellQuote(`${there}:${file}`)} . && remote-viewer ${copied}`;
  const here = `here: remote-viewer ${shellQuote(file)}`;
  if ("socket" in at) {
    const secret = passwordFile ? `, with the password in ${passwordFile}` : "";
    return [
      here,
      `from home: ssh -L ${HOME_PORT}:${shellQuote(at.socket)} ${there}`,
      `  and there: remote-viewer ${kind}://localhost:${HOME_PORT}${secret}`,
    ];
  }
  if (!LOOPBACK.test(at.host)) return [here, `from home: ${copy}`];
  const host0 = bracket(at.host);
  // What the file names must lead to the tunnel: ssh itself listens on localhost only.
  const listen = at.host === "localhost" ? "" : `${host0}:`;
  return [here, `from home: ssh -L ${listen}${at.port}:${host0}:${at.port} ${there}`, `  and there: ${copy}`];
}

/** Where a socket's tunnel begins, at home. */
const HOME_PORT = 5900;
