import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { endQemu, hasEnded, KILL, LADDER, PATIENT, stillRuns } from "../../src/qemu/end.ts";
import { QmpDisconnect, QmpError, QmpTimeout } from "../../src/qmp/errors.ts";

/** The steps for a qemu that exits after `goneBy`, and the limit of each. */
async function end(
  quit: () => Promise<unknown>,
  goneBy: string | undefined,
  ladder = LADDER,
): Promise<[gone: boolean, ...steps: string[]]> {
  const steps: string[] = [];
  let last = "";
  const gone = await endQemu(
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

describe("endQemu", () => {
  test.each([
    ["quit", LADDER, [true, "quit 10 s"]],
    ["SIGTERM", LADDER, [true, "quit 10 s", "SIGTERM 10 s"]],
    ["SIGKILL", LADDER, [true, "quit 10 s", "SIGTERM 10 s", "SIGKILL 10 s"]],
    [undefined, LADDER, [false, "quit 10 s", "SIGTERM 10 s", "SIGKILL 10 s"]],
    ["SIGKILL", KILL, [true, "SIGKILL 10 s"]],
    ["SIGTERM", PATIENT, [true, "quit 300 s", "SIGTERM 10 s"]],
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
    const [quit, ...signals] = LADDER;
    const ladder = [{ ...quit!, answerMs: 20 }, ...signals];
    expect(await end(() => new Promise(() => {}), "SIGTERM", ladder)).toEqual([true, "SIGTERM 10 s"]);
  });
});

test("hasEnded waits no longer than its limit", async () => {
  expect(await hasEnded(Promise.resolve(), 60_000)).toBe(true);
  expect(await hasEnded(new Promise(() => {}), 20)).toBe(false);
});

test("after a stop signal hasEnded has a shorter limit, for present and later waits", async () => {
  const script = `import { installSignalHandlers } from ${JSON.stringify(join(import.meta.dir, "../../src/process/signals.ts"))};
import { hasEnded } from ${JSON.stringify(join(import.meta.dir, "../../src/qemu/end.ts"))};
installSignalHandlers();
const never = new Promise(() => {});
const begun = hasEnded(never, 300_000, 20);
process.kill(process.pid, "SIGTERM");
await Bun.sleep(0);
console.log(await begun, await hasEnded(never, 300_000, 20), await hasEnded(never, 10));`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", script]);
  expect(stdout.toString()).toBe("false false false\n");
}, 60_000);

test.each([
  [undefined, "cannot end qemu: it does not answer, and its process cannot be seen", "as root"],
  [
    { pid: 7, name: "qemu-system-x86" },
    "cannot end qemu-system-x86 (pid 7): it still runs after SIGKILL",
    "-p 7",
  ],
])("stillRuns of %j", (holder, message, hint) => {
  const error = stillRuns(holder);
  expect(error).toMatchObject({ exitCode: 74, message });
  expect(error.hint).toContain(hint);
});
