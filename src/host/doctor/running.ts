import { lstatOf } from "../../lib/read-file.ts";
import { join } from "node:path";
import { HOST } from "../../store/layout.ts";
import type { Context } from "../../vm/context.ts";
import { explainExited } from "../../vm/explain-exited.ts";
import { readVmStatus } from "../../vm/status.ts";
import type { Check } from "./check.ts";

/** Programs beside the current VM's qemu that have exited while it runs; none if it is off. */
export async function checkExited(context: Context, hostdir: string): Promise<Check[]> {
  if (!lstatOf(join(hostdir, HOST.workLink))) return [];
  const { tpmExited, nics = [] } = await readVmStatus(context, hostdir);
  const found = nics.flatMap(({ number, exited = [] }) =>
    exited.map((program) => ({ name: program, use: `network card ${number} of the running VM` })),
  );
  if (tpmExited) found.push({ name: "swtpm", use: "TPM of the running VM" });
  return found.map((item) => ({
    ...item,
    state: "limited",
    needed: false,
    detail: explainExited([item.name]),
  }));
}
