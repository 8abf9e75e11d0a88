import { VmError } from "./errors.ts";

/**
 * Understands an option's number of seconds.
 * @param least 0 or 1
 * @throws 64
 */
export function parseSeconds(option: string, text: string | undefined, least = 0): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,6}$/.test(text) && Number(text) >= least) return Number(text);
  throw new VmError("usage", `--${option}: '${text}' is not allowed`, {
    hint: `allowed: seconds, ${least} to 999999`,
  });
}
