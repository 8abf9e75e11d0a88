import { log } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import type { Context } from "./context.ts";
import type { Status } from "./status-types.ts";

/** What a label is worth that `set` refuses, but a settings file may have. */
export const explainCommandLabel = (label: string): string =>
  `it is the name of a command, which @${label} is; select by --label=${label}`;

/** Warns of such labels, each once. */
export function warnOfCommandLabels({ isCommand }: Context, vms: readonly Status[]): void {
  const found = vms.flatMap(({ labels = [] }) => labels.filter(isCommand));
  for (const label of new Set(found)) {
    const names = vms.filter(({ labels = [] }) => labels.includes(label)).map(({ name }) => plain(name));
    log.warn(`the label '${label}' of ${names.join(", ")}: ${explainCommandLabel(label)}`);
  }
}
