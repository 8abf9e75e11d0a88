import type { Command } from "./command.ts";

/** More than this many columns of options are left to the command's own help. */
const OPTIONS_WIDTH = 80;

/** `destroy [--force]`: with the command's own options. */
export function usageOf(command: Command): string {
  const options = command.options.map(({ long, value }) => `[--${long}${value ? `=${value}` : ""}]`);
  const all = options.join(" ");
  return signatureOf(command, all.length > OPTIONS_WIDTH ? "[OPTIONS]" : all);
}

/** `backup [SNAPSHOT [DESCRIPTION]]` */
export function signatureOf(command: Command, options = ""): string {
  const required = command.positionals.filter((item) => item.required).map((item) => item.label);
  const optional = command.positionals
    .filter((item) => !item.required)
    .reduceRight((inner, item) => `[${item.label}${item.many ? "…" : ""}${inner && ` ${inner}`}]`, "");
  return [command.name, options, ...required, optional].filter(Boolean).join(" ");
}
