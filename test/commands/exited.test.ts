/** Programs beside a running qemu that have exited are shown. */
import { expect, test } from "bun:test";
import { findByArgument } from "../../src/process/holders.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

/** Says that it is ready, and serves its connection until qemu closes it. */
const PASST = `while [ $# -gt 0 ]; do [ "$1" = --pid ] && echo $$ >"$2"; shift; done
cat <&3`;

test("a passt that has exited is shown with its card by status and doctor", async () => {
  using box = new Sandbox();
  box.program("passt", PASST);
  await box.ok("--net=user", "--net=passt", "create", "G");
  await box.running();
  expect((await box.json("status")).nics).toMatchObject([{ number: 1 }, { number: 2, network: "passt" }]);
  const { stdout } = await box.ends(0, "status");
  expect(stdout).not.toContain("exited");
  expect((await box.vm("doctor")).stdout).not.toContain("exited");
  const running = () => findByArgument("passt", `${box.work}/passt-2.pid`);
  for (const { pid } of running()) process.kill(pid, "SIGKILL");
  await until("passt has exited", () => running().length === 0);
  const { nics } = await box.json("status");
  expect(nics[0].exited).toBeUndefined();
  expect(nics[1].exited).toEqual(["passt"]);
  await box.ends(
    0,
    "status",
    /^card: +2: passt, .*; passt has exited: the card has no connection; restart the VM: vm restart$/m,
  );
  expect((await box.vm("doctor")).stdout).toMatch(
    /^passt +limited +optional +network card 2 of the running VM +passt has exited/m,
  );
  await box.ok("stop");
  expect((await box.json("status")).nics[1].exited).toBeUndefined();
});
