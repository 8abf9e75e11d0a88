import type { Settings } from "../config/schema.ts";
import { PLAIN, type Theme } from "../lib/log.ts";

/** Files hold colours as written text: `\033[1;32m`. */
const unescapeColour = (text: string): string => text.replaceAll(/\\(033|e|x1b)/gi, "\x1b");

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
    normal: unescapeColour(settings.CLR_NORM),
    bold: unescapeColour(settings.CLR_BOLD),
    ok: unescapeColour(settings.CLR_OK),
    error: unescapeColour(settings.CLR_ERR),
    warning: unescapeColour(settings.CLR_WARN),
    command: unescapeColour(settings.CLR_LC1),
    name: unescapeColour(settings.CLR_LC2),
  };
}
