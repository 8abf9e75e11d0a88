import type { Settings } from "../config/schema.ts";
import { PLAIN, type Theme } from "../lib/log.ts";

/** Files hold colours as written text: `\033[1;32m`. */
const unescape = (text: string): string => text.replaceAll(/\\(033|e|x1b)/gi, "\x1b");

/** Are colours wanted? Not with --no-colors, NO_COLOR (no-color.org), a dumb terminal, or none. */
export function wantsColours(
  noColors: boolean,
  env: Record<string, string | undefined>,
  isTTY: boolean,
): boolean {
  return !noColors && !env.NO_COLOR && env.TERM !== "dumb" && isTTY;
}

export function themeOf(settings: Settings, coloured: boolean): Theme {
  if (!coloured) return PLAIN;
  return {
    normal: unescape(settings.CLR_NORM),
    bold: unescape(settings.CLR_BOLD),
    ok: unescape(settings.CLR_OK),
    error: unescape(settings.CLR_ERR),
    warning: unescape(settings.CLR_WARN),
    command: unescape(settings.CLR_LC1),
    name: unescape(settings.CLR_LC2),
  };
}
