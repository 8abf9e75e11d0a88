import { badOption } from "../config/complaint.ts";
import { parseSetting } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Context, ProcessFacts } from "../vm/context.ts";

/** [compat] Commands that a `--timeout` before the first command of a batch is for: it was, before `run` had one. */
const LIMITED_BEFORE = ["job", "exec"];

/** Commands that it is for first, where it is not for `run`. */
const LIMITED_FIRST = [...LIMITED_BEFORE, "run"];

/** A typed `--timeout` for a command that has an option of that name itself, unless it is for another one of the line. */
export function findTypedLimit({ options, batch = [] }: ProcessFacts): string | undefined {
  const limit = options.settings.TIMEOUT;
  return batch.some((name) => LIMITED_FIRST.includes(name)) || limit === undefined || limit === ""
    ? undefined
    : String(limit);
}

/**
 * The time limit of `run`: its own option, or a typed `--timeout` that is for no other command of the line. That of a
 * settings file is for jobs.
 * @param own value of `run --timeout`
 * @throws 64 for an invalid value, or a background run that nothing would end
 */
export function resolveTimeLimit(
  { options, batch = [] }: Context,
  own: string | undefined,
  { detach = false, waits }: { detach?: boolean | undefined; waits: boolean },
): number | undefined {
  const shared = batch.some((name) => LIMITED_BEFORE.includes(name)) ? undefined : options.settings.TIMEOUT;
  const raw = own ?? shared;
  if (raw === undefined) return undefined;
  const parsed = parseSetting("TIMEOUT", raw);
  if (!("value" in parsed)) throw badOption("--timeout", String(raw), parsed.allowed);
  const seconds = parsed.value as number | undefined;
  if (seconds !== undefined && detach && !waits)
    throw new VmError(
      "usage",
      "run: --timeout does not end a run in the background: no process waits for it",
      {
        hint: `run in the foreground: ${commandLine("run", `--timeout=${seconds}`)}\nwait for the guest at most so long: ${commandLine("run", "--detach", "--wait=ssh", `--timeout=${seconds}`)}`,
      },
    );
  return seconds;
}
