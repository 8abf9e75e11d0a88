import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import type { SharedDisplay } from "../machine/types.ts";
import { exec, findProgram } from "../process/exec.ts";
import { queryDisplay } from "../qmp/screen.ts";
import { lstatOf } from "../lib/read-file.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive, type Live } from "../vm/running.ts";
import { readTls } from "../vm/tls.ts";
import { describeViewing, hasViewer, viewerFile, writeViewerFile } from "../vm/viewer.ts";

/**
 * Opens the running VM's screen in a desktop session, until the viewer is closed; elsewhere prints how to open it.
 * @throws 69 if the VM has no display, 74 if the viewer fails
 */
export async function viewVm(context: Context): Promise<void> {
  const display = await withLive(context, "view", async (live) => {
    const shown = await findDisplay(live);
    // Started by hand with run-vm.sh, or the file was removed.
    if (!lstatOf(shown.file)) writeViewerFile(live.work, shown, live.vm.settings.GUESTNAME);
    return shown;
  });
  const { file } = display;
  if (hasViewer(context, display)) {
    await exec(["remote-viewer", file], { what: "cannot view", runAs: "user", watched: false });
    return;
  }
  if ((context.env.DISPLAY || context.env.WAYLAND_DISPLAY) && !findProgram("remote-viewer"))
    log.info("remote-viewer is not installed here (ALT, Debian, Fedora, Arch: virt-viewer)");
  context.print(
    describeViewing(context, hostname(), file, display)
      .map((line) => `${plain(line)}\n`)
      .join(""),
  );
}

/** The display of the running qemu, which may differ from the settings. */
async function findDisplay({ vm, work, qmp }: Live): Promise<SharedDisplay & { file: string }> {
  const { kind, at, asksPassword, encrypted } = (await queryDisplay(qmp)) ?? {};
  if (!kind || !at)
    throw new VmError("unavailable", "cannot view: the VM runs without a display", {
      hint: `save its screen instead: ${commandLine("screenshot")}\nset PORT and DISPLAY_PROTOCOL for a display`,
    });
  return {
    kind,
    at,
    file: viewerFile(work, kind),
    passwordFile: asksPassword ? join(work.dir, WORK.spicePassword) : undefined,
    tls: encrypted ? readTls(resolve(vm.hostdir, vm.settings.SPICE_TLS_DIR)) : undefined,
  };
}
