import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Vm } from "./find.ts";

/**
 * Refuses commands that would change the disks of a template.
 * @param command what is refused, for the error message
 * @throws 78 if the VM is one
 */
export function refuseTemplate(
  { settings, hostdir }: Pick<Vm, "settings" | "hostdir">,
  command: string,
): void {
  if (!settings.TEMPLATE) return;
  throw new VmError("config", `cannot ${command}: the VM in ${hostdir} is a template (TEMPLATE)`, {
    hint: `clone it: ${commandLine("clone", "DIR")}; or make it a VM again: ${commandLine("set", "TEMPLATE=no")}`,
  });
}
