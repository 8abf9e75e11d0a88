import { expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { isZombie, listDescendants } from "../../src/process/descendants.ts";
import { until } from "../fixtures/sandbox.ts";
import { Temp } from "../fixtures/temp.ts";

test("a process that has ended and was not reaped is a zombie, whatever its name", async () => {
  using temp = new Temp();
  // As its name is in /proc/PID/stat: the state of another process.
  const program = temp.path("a) S 1");
  symlinkSync("/bin/sleep", program);
  const parent = Bun.spawn(["bash", "-c", '"$0" 60 & exec sleep 60', program]);
  await until("it is started", () => listDescendants(parent.pid).length > 0);
  const [child] = listDescendants(parent.pid);
  expect(isZombie(child!)).toBe(false);
  process.kill(child!, "SIGKILL");
  await until("it has ended", () => isZombie(child!));
  parent.kill();
  await parent.exited;
  expect(isZombie(parent.pid)).toBe(false);
});
