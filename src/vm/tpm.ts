import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Settings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { realPath } from "../lib/read-file.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Machine, Tpm } from "../machine/types.ts";
import { requireProgram } from "../process/exec.ts";
import { findUsers, type Holder } from "../process/holders.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { COMPANION_FD, startCompanion } from "../qemu/companion.ts";
import { buildSwtpmArgv } from "../qemu/devices/tpm.ts";
import { stillRunningError } from "../qemu/end.ts";
import type { QemuOptions } from "../qemu/session.ts";
import { WORK } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";

type TpmSettings = Pick<Settings, "TPM" | "QEMUARCH">;

/** qemu's device for the VM's TPM; undefined without one. @throws 69 for an architecture without TPM */
export function tpmDeviceOf({ TPM, QEMUARCH }: TpmSettings): string | undefined {
  if (TPM === "") return undefined;
  const { tpmDevice }: ArchFacts = ARCH[QEMUARCH];
  if (tpmDevice !== undefined) return tpmDevice;
  throw new VmError("unavailable", `${QEMUARCH} guests have no TPM`, {
    hint: "leave out --tpm; TPM of a settings file is overridden by TPM= in guest.env",
  });
}

/** @throws 69 if the architecture, this qemu or this host has no TPM */
export function resolveTpm(
  settings: TpmSettings,
  { devices }: Pick<Capabilities, "devices">,
): Tpm | undefined {
  const device = tpmDeviceOf(settings);
  if (device === undefined) return undefined;
  requireProgram("swtpm");
  if (devices.has(device)) return { device };
  throw new VmError("unavailable", `this qemu has no TPM device ${device}`, {
    hint: "install a qemu with it, or run the VM without: --no-tpm",
  });
}

/** Starts swtpm for a machine with a TPM, as a companion of its qemu. */
export function companionOf(
  { tpm }: Machine,
  workdir: string,
  logPath: string,
): Pick<QemuOptions, "companion"> {
  if (!tpm) return {};
  const cwd = join(workdir, WORK.tpm);
  return {
    companion: () => {
      mkdirSync(cwd, { recursive: true, mode: 0o700 });
      return startCompanion({ argv: buildSwtpmArgv(`clientfd=${COMPANION_FD}`), cwd, logPath });
    },
  };
}

/** How long swtpm may take to write its state and exit, after qemu. */
const EXIT_MS = 2000;
const KILL_MS = 2000;
const RETRY_MS = 10;

/** The swtpm of a VM, by its working directory; empty if this user cannot see it. */
export function findSwtpm(workdir: string): Holder[] {
  const directory = realPath(join(workdir, WORK.tpm));
  return directory === undefined ? [] : findUsers(new Set(), directory, "swtpm");
}

/**
 * Waits for the swtpm of a qemu that has exited. One that a killed command has left, without a qemu, is killed. The caller
 * holds the VM's lock, and no qemu runs.
 * @throws 74 if it cannot be killed
 */
export async function endTpm({ dir }: Workdir): Promise<void> {
  const find = (): Holder[] => findSwtpm(dir);
  const waitUntilGone = async (limitMs: number): Promise<boolean> => {
    const deadline = Date.now() + limitMs;
    while (find().length > 0) {
      if (Date.now() > deadline) return false;
      await Bun.sleep(RETRY_MS);
    }
    return true;
  };
  if (await waitUntilGone(EXIT_MS)) return;
  for (const { pid } of find()) process.kill(pid, "SIGKILL");
  if (!(await waitUntilGone(KILL_MS))) throw stillRunningError(find()[0]!);
}
