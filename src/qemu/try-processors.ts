import { closeSync, writeSync } from "node:fs";
import { isQemuWarning } from "../lib/program-messages.ts";
import { quoteLine } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import { exec, findProgram, lastLineOf } from "../process/exec.ts";
import { pipe } from "../process/libc.ts";
import { formatCommand } from "../qmp/commands.ts";
import { buildProcessorArgs, type Processors } from "./argv.ts";
import { machineTypeOf, type Placed } from "./layout.ts";

/**
 * Has qemu make a machine with these processors and no devices, which it does not run.
 * @returns qemu's last line if it refuses; undefined if it does not, or is not installed
 */
export async function tryProcessors(machine: Placed & Processors): Promise<string | undefined> {
  const { binary } = ARCH[machine.arch];
  if (findProgram(binary) === undefined) return undefined;
  const argv = [
    binary,
    "-nodefaults",
    "-no-user-config",
    "-machine",
    machineTypeOf(machine),
    ...buildProcessorArgs(machine),
    ..."-display none -S -qmp stdio".split(" "),
  ];
  const [readEnd, writeEnd] = pipe();
  writeSync(writeEnd, formatCommand("qmp_capabilities") + formatCommand("quit"));
  closeSync(writeEnd);
  const result = await exec(argv, { stdin: readEnd, anyStatus: true }).finally(() => closeSync(readEnd));
  if (result.status === 0) return undefined;
  const lines = result.stderr.trim().split("\n");
  return quoteLine(lines.findLast((line) => line !== "" && !isQemuWarning(line)) ?? lastLineOf(result));
}
