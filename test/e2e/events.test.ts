/** What happened to a VM, by the log of a real qemu. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { binary, until } from "./harness.ts";
import { RamVm } from "./ram-vm.ts";
import { qemuPid, suite } from "./tools.ts";

suite("events", () => {
  test("--follow prints a start, a pause and the end of a killed qemu as they happen, once", async () => {
    using vm = await RamVm.make();
    const { box } = vm;
    await vm.run();
    const follower = box.start(["events", "--follow", "--all", "--json"], {
      program: ["sh", "-c", `exec ${binary} "$@" >events.log`, "sh"],
    });
    const printed = (): string[] =>
      (existsSync(box.path("events.log")) ? box.read("events.log") : "")
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as { event: string; how?: string })
        .map(({ event, how }) => (how === undefined ? event : `${event}: ${how}`));
    await until("the start is printed", () => printed().includes("started"));
    await box.ok(["pause"]);
    await box.ok(["resume"]);
    await until("it was paused", () => printed().includes("resumed"));
    process.kill(await qemuPid(box), "SIGKILL");
    await until("the end is printed", () => printed().some((line) => line.startsWith("ended")));
    await box.ok(["backup", "S0"]);
    await until("the snapshot is printed", () => printed().includes("snapshot"));
    follower.kill("SIGINT");
    expect((await follower.done).status).toBe(130);
    const runs = printed().slice(printed().lastIndexOf("started"));
    expect(runs).toEqual([
      "started",
      "paused",
      "resumed",
      "ended: qemu was killed, at this time or later",
      "snapshot",
    ]);
  });
});
