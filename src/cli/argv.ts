import { badOption } from "../config/complaint.ts";
import { parseSetting, type RawSettings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import type { Options } from "../services/context.ts";
import { parseBatch, type Invocation } from "./batch.ts";
import { parseOptions } from "./getopt.ts";
import { GLOBAL_OPTIONS } from "./options.ts";

/** The whole command line, understood and checked; nothing has happened yet. */
export interface Intent {
  options: Options;
  help: boolean;
  version: boolean;
  licenses: boolean;
  noColors: boolean;
  debug: boolean;
  batch: Invocation[];
}

/** @throws 64 when anything in it is wrong */
export function parseArgv(words: readonly string[], prog: string): Intent {
  const { found, rest } = parseOptions(words, GLOBAL_OPTIONS, `all options: ${prog} -h`);
  const settings: RawSettings = {};
  const additions: Required<Options["additions"]> = { FORWARDS: [], IMAGES: [], SHARES: [] };
  const spelled: NonNullable<Options["spelled"]> = {};
  const flags = { help: false, version: false, licenses: false, noColors: false, debug: false };
  let hostdir: string | undefined;
  let cleared = false;
  const wrong: VmError[] = [];
  const check = (setting: keyof RawSettings, value: string, spelling: string): string => {
    const parsed = parseSetting(setting, value);
    if (!("value" in parsed)) wrong.push(badOption(spelling, parsed.given ?? value, parsed.allowed));
    return value;
  };
  for (const { option, spelling, value = "" } of found) {
    const { effect } = option;
    switch (effect.kind) {
      case "flag":
        flags[effect.flag] = true;
        break;
      case "hostdir":
        if (value === "") throw badOption(spelling, value, "a directory");
        hostdir = value;
        break;
      case "set":
        settings[effect.setting] = check(effect.setting, effect.value ?? value, spelling);
        spelled[effect.setting] = `--${option.long}`;
        break;
      case "add":
        spelled[effect.setting] = `--${option.long}`;
        if (value === "") {
          // [compat] IMAGES holds the VM's own disks: only what was typed before goes.
          if (effect.setting === "IMAGES") cleared = true;
          else settings[effect.setting] = [];
          additions[effect.setting] = [];
        } else additions[effect.setting].push(check(effect.setting, value, spelling));
    }
  }
  if (wrong.length > 0) throw allWrong(wrong);
  const wanted = !flags.help && !flags.version && !flags.licenses;
  return {
    ...flags,
    options: { settings, additions, hostdir, spelled, ...(cleared && { imagesCleared: true }) },
    batch: wanted ? parseBatch(rest, prog) : [],
  };
}

/** One error for all bad values. */
function allWrong(wrong: VmError[]): VmError {
  if (wrong.length === 1) return wrong[0]!;
  const lines = wrong.map(({ message, hint }) => `${message} (${hint})`);
  return new VmError("usage", `${wrong.length} options are wrong:\n  ${lines.join("\n  ")}`);
}
