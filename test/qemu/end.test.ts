import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  terminateQemu,
  waitForExit,
  KILL_ONLY,
  TERMINATE_STEPS,
  FLUSH_STEPS,
  stillRunningError,
} from "../../src/qemu/end.ts";
import { QmpDisconnect, QmpError, QmpTimeout } from "../../src/qmp/errors.ts";

/** The steps for a qemu that exits after `goneBy`, and the limit of each. */
async function end(
  quit: () => Promise<unknown>,
  goneBy: string | undefined,
  ladder = TERMINATE_STEPS,
): Promise<[gone: boolean, ...steps: string[]]> {
  const steps: string[] = [];
  let last = "";
  const gone = await terminateQemu(
    {
      quit: () => {
        last = "quit";
        return quit();
      },
      signal: (name) => void (last = name),
      isGone: async (limitMs) => {
        steps.push(`${last} ${limitMs / 1000} s`);
        return last === goneBy;
      },
    },
    ladder,
  );
  return [gone, ...steps];
}

const refuse = (error: Error) => () => Promise.reject(error);
const answer = (): Promise<unknown> => Promise.resolve({});

describe("terminateQemu", () => {
  test.each([
    ["quit", TERMINATE_STEPS, [true, "quit 10 s"]],
    ["SIGTERM", TERMINATE_STEPS, [true, "quit 10 s", "SIGTERM 10 s"]],
    ["SIGKILL", TERMINATE_STEPS, [true, "quit 10 s", "SIGTERM 10 s", "SIGKILL 10 s"]],
    [undefined, TERMINATE_STEPS, [false, "quit 10 s", "SIGTERM 10 s", "SIGKILL 10 s"]],
    ["SIGKILL", KILL_ONLY, [true, "SIGKILL 10 s"]],
    ["SIGTERM", FLUSH_STEPS, [true, "quit 300 s", "SIGTERM 10 s"]],
  ])("if it exits by %p", async (goneBy, ladder, steps) => {
    expect(await end(answer, goneBy, ladder)).toEqual(steps as [boolean]);
  });

  test.each<[string, Error, string[]]>([
    ["a timeout", new QmpTimeout("late"), ["SIGTERM 10 s"]],
    ["a refusal", new QmpError("quit", { class: "GenericError", desc: "no" }), ["SIGTERM 10 s"]],
    ["a closed connection: it is exiting", new QmpDisconnect(), ["quit 10 s", "SIGTERM 10 s"]],
  ])("if quit ends with %s", async (_what, error, steps) => {
    expect(await end(refuse(error), "SIGTERM")).toEqual([true, ...steps]);
  });

  test("if quit is not answered: SIGTERM after its limit", async () => {
    const [quit, ...signals] = TERMINATE_STEPS;
    const ladder = [{ ...quit!, answerMs: 20 }, ...signals];
    expect(await end(() => new Promise(() => {}), "SIGTERM", ladder)).toEqual([true, "SIGTERM 10 s"]);
  });
});

test("waitForExit waits no longer than its limit", async () => {
  expect(await waitForExit(Promise.resolve(), 60_000)).toBe(true);
  expect(await waitForExit(new Promise(() => {}), 20)).toBe(false);
});

test("after a stop signal waitForExit has a shorter limit, for present and later waits", async () => {
  const script = `import { installSignalHandlers } from ${JSON.stringify(join(import.meta.dir, "../../src/process/signals.ts"))};
import { waitForExit } from ${JSON.stringify(join(import.meta.dir, "../../src/qemu/end.ts"))};
installSignalHandlers();
const never = new Promise(() => {});
const begun = waitForExit(never, 300_000, 20);
process.kill(process.pid, "SIGTERM");
await Bun.sleep(0);
console.log(await begun, await waitForExit(never, 300_000, 20), await waitForExit(never, 10));`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", script]);
  expect(stdout.toString()).toBe("false false false\n");
}, 60_000);

test.each([
  [undefined, "cannot kill qemu: no reply from its monitor, and its process is not accessible", "as root"],
  [
    { pid: 7, name: "qemu-system-x86" },
    "cannot kill qemu-system-x86 (pid 7): it still runs after SIGKILL",
    "-p 7",
  ],
])("stillRunningError of %j", (holder, message, hint) => {
  const error = stillRunningError(holder);
  expect(error).toMatchObject({ exitCode: 74, message });
  expect(error.hint).toContain(hint);
});
