import { afterAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { findByArgument } from "../../src/process/holders.ts";
import { Temp } from "../fixtures/temp.ts";
import { until } from "../fixtures/sandbox.ts";

const temp = new Temp();
afterAll(() => temp[Symbol.dispose]());

const RUN = `
const [module, ...args] = process.argv.slice(1);
const { runHook } = await import(module);
await runHook(...args, {}, "");
`;

const hook = temp.path("some.hook");

/** Runs a hook in another process, without a terminal. */
function runHook(text: string) {
  temp.write("some.hook", text);
  const argv = [process.execPath, "-e", RUN, require.resolve("../../src/rescue/hooks.ts"), hook, temp.top];
  return Bun.spawn(argv, { stdin: "ignore", stdout: "inherit", stderr: "inherit" });
}

const started = (): number => Number(readFileSync(temp.path("child"), "utf8"));

test("when the program is killed, nothing of a hook is left", async () => {
  const program = runHook("sh -c 'echo $$ >child.new; mv child.new child; sleep 100; :'\n");
  await until("the hook's child runs", () => existsSync(temp.path("child")));
  program.kill("SIGKILL");
  await until("it has ended", () => !existsSync(`/proc/${started()}`));
});

test("what a hook leaves behind on purpose keeps running when it has ended", async () => {
  expect(await runHook("sleep 100 </dev/null >/dev/null 2>&1 & echo $! >child\n").exited).toBe(0);
  await until("the shell that watched it has ended", () => findByArgument("", hook).length === 0);
  process.kill(started(), "SIGTERM");
});
