import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Vm } from "./find.ts";

/**
 * Refuses commands that would change the disks of a template.
 * @param command what is refused, for the error message
 * @throws 75 if the VM is one
 */
export function refuseTemplate(
  { settings, hostdir, work }: Pick<Vm, "settings" | "hostdir" | "work">,
  command: string,
): void {
  if (!settings.TEMPLATE) return;
  const hint =
    work.state === "present"
      ? `clone it: ${commandLine("clone", "DIR")}; or make it a VM again: ${commandLine("set", "TEMPLATE=no")}`
      : `clone its last snapshot: ${commandLine("clone", "LAST", "DIR")}; or restore its working files: ${commandLine("restore")}`;
  throw new VmError("busy", `cannot ${command}: the VM in ${hostdir} is a template (TEMPLATE)`, { hint });
}
