import { chmodSync, realpathSync, statSync } from "node:fs";
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

/** A screen of 8192 × 8192 pixels has 192 MiB. */
const MAX_SCREEN_BYTES = 256 << 20;

/**
 * Saves a picture of the running VM's screen as PNG.
 * @param file where; `-` is stdout; by default a name of its own in the current directory
 * @param show in the terminal, and in a file only if one is named
 * @throws 69 when the VM has no graphics card, or the terminal shows no pictures
 */
export async function takeScreenshot(
  context: Context,
  file: string | undefined,
  show: boolean,
): Promise<void> {
  const protocol = show ? requireImages(context) : undefined;
  const { png, name } = await withLive(context, WHAT, async ({ vm, work, qmp }) => {
    // Where qemu may write; it might not be allowed to where the picture is wanted.
    const ppm = join(work.dir, WORK.screen);
    // qemu would follow a link.
    remove(ppm);
    try {
      if (!(await dumpScreen(qmp, ppm)))
        throw new VmError("unavailable", `cannot ${WHAT}: the VM has no graphics card`, {
          hint: `its serial console is kept in ${join(work.dir, WORK.consoleLog)}`,
        });
      return { png: pngOfPpm(readSmallBytes(ppm, MAX_SCREEN_BYTES)!), name: vm.settings.GUESTNAME };
    } finally {
      remove(ppm);
    }
  });
  if (protocol) context.print(Buffer.from(formatInlineImage(protocol, png)));
  if (file === "-") return context.print(png);
  if (protocol && file === undefined) return;
  const path = resolve(context.cwd, file ?? defaultName(name, new Date()));
  save(path, png);
  context.print(`${plain(path)}\n`);
}

function requireImages({ env }: Context): ImageProtocol {
  const terminal = isTerminal(STDOUT);
  const protocol = terminal ? imageProtocolOf(env) : undefined;
  if (protocol) return protocol;
  const why = terminal ? "this terminal is not known to show pictures" : "stdout is no terminal";
  throw new VmError("unavailable", `cannot show the screenshot: ${why}`, {
    hint: `${IMAGE_TERMINALS} show pictures (not within tmux or screen); without --show it goes to a file`,
  });
}

/** `WS10-20261125-093000.png`; a VM's name may hold what a file's may not. */
export function defaultName(guest: string, now: Date): string {
  const stamp = formatTimestamp(now).replaceAll(/[-:]/g, "").replace(" ", "-");
  const name = guest.replaceAll(/[/\p{Cc}]/gu, "_").replace(/^[.-]/, "_");
  return `${name || "vm"}-${stamp}.png`;
}

/** Replaces a file, also at the end of a link; anything else there (a device) is left alone. */
function save(path: string, png: Buffer): void {
  try {
    const target = targetOf(path);
    if (target !== undefined && !statSync(target).isFile())
      throw new VmError("cannotCreate", `cannot write the screenshot: ${path} is no regular file`, {
        hint: `write to stdout: ${commandLine("screenshot", "-")}`,
      });
    // The picture is the user's file, not one of the VM's.
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
