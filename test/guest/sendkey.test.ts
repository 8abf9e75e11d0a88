import { describe, expect, test } from "bun:test";
import { fastClock } from "../fixtures/fast-clock.ts";
import type { FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";

/** A running VM whose keyboard is full after each key, for two looks at its status. */
async function withKeyboard(port = (full: boolean) => `portb[0x0064] = ${full ? "0x1d" : "0x1c"}\r\n`) {
  const box = new Sandbox();
  await box.ok("create", "G");
  let looks = 0;
  const sent: string[] = [];
  const qemu: FakeQemu = await box.running({
    answers: {
      "send-key": ({ keys }) => {
        if (looks > 0) sent.push("lost");
        sent.push(keys.map(({ data }: { data: string }) => data).join("-"));
        looks = 2;
      },
      "human-monitor-command": () => port(looks-- > 0),
    },
  });
  return { box, sent, qemu };
}

describe("sendkey", () => {
  test("each key when the guest has read the one before", async () => {
    const { box, sent } = await withKeyboard();
    using _box = box;
    await box.ok("sendkey", "ctrl-alt-f2", "enter", "--text=Ro\\n", "--text=!");
    expect(sent).toEqual(["ctrl-alt-f2", "ret", "shift-r", "o", "ret", "shift-1"]);
  });

  test("without a status that can be read: by time", async () => {
    const { box, sent } = await withKeyboard(() => "unknown command: 'i'\r\n");
    using _box = box;
    await box.ok("sendkey", "a");
    expect(sent).toEqual(["a"]);
  });

  test("a guest that does not read (74): says how many keys it has", async () => {
    const { box } = await withKeyboard(() => "portb[0x0064] = 0x1d\r\n");
    using _box = box;
    using _clock = fastClock();
    await box.ends(74, "sendkey a b", "0 of 2");
  });

  test("a paused guest (75), a job (69), a VM that is off (66)", async () => {
    const { box, sent } = await withKeyboard();
    using _box = box;
    await box.ok("pause");
    await box.ends(75, "sendkey a", "paused");
    await box.ok("resume");
    using _control = Bun.listen({ unix: `${box.work}/control.sock`, socket: { data: () => {} } });
    await box.ends(69, "sendkey a", "job");
    expect(sent).toEqual([]);
    await box.ok("stop");
    await box.ends(66, "sendkey a", "not running");
  });

  test.each<[line: string | string[], printed: string]>([
    ["sendkey", "KEY"],
    ["sendkey ctrl-alt-delet", "did you mean: ctrl-alt-delete"],
    ["sendkey F1", "f1"],
    ["sendkey crtl-alt-dell", "did you mean: ctrl-alt-del\n"],
    ["sendkey a-", "'a-': a key is missing beside -"],
    ["sendkey ctrl--", "called minus"],
    ["sendkey a-b-c-d-e-f", "6 keys at once, at most 5"],
    [["sendkey", "--text="], "missing"],
    [["sendkey", "--text=привет"], "'п'"],
    [["sendkey", "a", "--delay=x"], "milliseconds"],
    [["sendkey", "a", "--delay=99999"], "10000"],
  ])("refuses %j (64)", async (line, printed) => {
    using box = new Sandbox();
    await box.ends(64, line, printed);
  });
});
