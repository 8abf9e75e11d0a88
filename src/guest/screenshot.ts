import { chmodSync, closeSync, constants, ftruncateSync, openSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import {
  formatInlineImage,
  IMAGE_TERMINALS,
  imageProtocolOf,
  type ImageProtocol,
} from "../lib/inline-image.ts";
import { pngOfPpm } from "../lib/png.ts";
import { plain } from "../lib/text.ts";
import { formatTimestamp } from "../lib/time.ts";
import { callerUmask } from "../process/umask.ts";
import { isJailed } from "../live/lend.ts";
import { dumpScreen } from "../qmp/screen.ts";
import { remove } from "../store/remove.ts";
import { readSmallBytes } from "../lib/read-file.ts";
import { fileError, replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive } from "../vm/running.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

const WHAT = "take a screenshot";

/** 8192 × 8192 pixels are 192 MiB. */
const MAX_SCREEN_BYTES = 256 << 20;

/**
 * Saves the running VM's screen as PNG.
 * @param file `-` is stdout; default: a name with date and time in the current directory
 * @param show show it in the terminal, and write a file only if one is named
 * @throws 69 if the VM has no graphics card, or the terminal shows no images
 */
export async function takeScreenshot(
  context: Context,
  file: string | undefined,
  show: boolean,
): Promise<void> {
  const protocol = show ? requireImages(context) : undefined;
  const { png, name } = await withLive(context, WHAT, async ({ vm, work, qmp }) => {
    // In WORKDIR, where qemu can write; it may not have permission for the destination.
    const ppm = join(work.dir, WORK.screen);
    // qemu would follow a symlink. In a jail it has this file only.
    const isKept = isJailed(work.dir);
    const clear = (): void => (isKept ? empty(ppm) : remove(ppm));
    clear();
    try {
      if (!(await dumpScreen(qmp, ppm)))
        throw new VmError("unavailable", `cannot ${WHAT}: the VM has no graphics card`, {
          hint: `read its serial console: ${join(work.dir, WORK.consoleLog)}`,
        });
      return { png: pngOfPpm(readSmallBytes(ppm, MAX_SCREEN_BYTES)!), name: vm.settings.GUESTNAME };
    } finally {
      clear();
    }
  });
  if (protocol) context.print(Buffer.from(formatInlineImage(protocol, png)));
  if (file === "-") return context.print(png);
  if (protocol && file === undefined) return;
  const path = resolve(context.cwd, file ?? defaultName(name, new Date()));
  save(path, png);
  context.print(`${plain(path)}\n`);
}

function empty(path: string): void {
  const fd = openSync(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    0o600,
  );
  try {
    ftruncateSync(fd);
  } finally {
    closeSync(fd);
  }
}

function requireImages({ env }: Context): ImageProtocol {
  const terminal = isTerminal(STDOUT);
  const protocol = terminal ? imageProtocolOf(env) : undefined;
  if (protocol) return protocol;
  const why = terminal ? "this terminal is not known to show images" : "stdout is not a terminal";
  throw new VmError("unavailable", `cannot show the screenshot: ${why}`, {
    hint: `use ${IMAGE_TERMINALS}, not within tmux or screen; or write a file: leave out --show`,
  });
}

/** `WS10-20261125-093000.png`; a VM's name may have characters that a file name cannot have. */
export function defaultName(guest: string, now: Date): string {
  const stamp = formatTimestamp(now).replaceAll(/[-:]/g, "").replace(" ", "-");
  const name = guest.replaceAll(/[/\p{Cc}]/gu, "_").replace(/^[.-]/, "_");
  return `${name || "vm"}-${stamp}.png`;
}

/** Replaces a file, also the target of a symlink, but no device or other kind of file. */
function save(path: string, png: Buffer): void {
  try {
    const target = targetOf(path);
    if (target !== undefined && !statSync(target).isFile())
      throw new VmError("cannotCreate", `cannot write the screenshot: ${path} is not a regular file`, {
        hint: `write to stdout: ${commandLine("screenshot", "-")}`,
      });
    // A file of the user's, not one of the VM's: with the user's umask.
    const mode = target === undefined ? 0o666 & ~callerUmask() : statSync(target).mode & 0o777;
    replaceFile(target ?? path, png);
    chmodSync(target ?? path, mode);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR"))
      throw new VmError("noInput", `cannot write the screenshot: no such directory: ${dirname(path)}`);
    throw fileError(`cannot write the screenshot ${path}`, error);
  }
}

function targetOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}
