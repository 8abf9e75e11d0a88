/** Keys reach a guest's own console, none lost: a small Linux reads its screen's terminal and answers on the serial console. */
import { beforeAll, describe, expect, test } from "bun:test";
import type { Guests } from "../guests/build.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import { configure, sampled, smallSandbox, suiteInTurn, turnsOf } from "./tools.ts";

const SCRIPT = `
stty -echo </dev/tty1
echo READY
while IFS= read -r line; do echo "GOT [$line]"; done </dev/tty1
`;

/** All printable characters of the US layout, three times, and a rest: 300 in all. */
const PRINTABLE = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join("");
const TEXT = `${PRINTABLE.repeat(3)}aA1!zZ0)~\`|\\ \\`.slice(0, 299).padEnd(300, "x");

async function typingGuest(built: Guests, firmware: string): Promise<Sandbox> {
  const box = smallSandbox();
  configure(box, `MEMORY=512M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n${firmware === "UEFI" ? "UEFI=1\n" : ""}`);
  await box.ok(["create", "L"]);
  box.write("guest.sh", SCRIPT);
  box.write("vm.defaults", `-kernel ${built.kernel} -initrd ${built.initrd} -append "${built.append}"\n`);
  await box.ok(["run", "--detach"]);
  await until("the guest", () => box.console().includes("READY"));
  return box;
}

suiteInTurn(0, 4)("a guest receives", () => {
  let built: Guests;
  beforeAll(async () => {
    built = await guests();
  });

  describe.each(sampled(["BIOS", "UEFI"], 0, 1, turnsOf(4)))("with %s", (firmware) => {
    test("a text of 300 characters, exactly, three times", async () => {
      using box = await typingGuest(built, firmware);
      expect(TEXT).toHaveLength(300);
      const received = (): string[] =>
        Array.from(box.console().matchAll(/^GOT \[(.*)\]$/gm), ([, line]) => line!);
      for (let times = 1; times <= 3; times++) {
        await box.ok(["sendkey", "--text", `${TEXT.replaceAll("\\", "\\\\")}\\n`]);
        await until("the line", () => received().length >= times);
      }
      expect(received()).toEqual([TEXT, TEXT, TEXT]);
      await box.ok(["sendkey", "a", "shift-b", "spc", "ret"]);
      await until("the keys", () => box.console().includes("GOT [aB ]"));
    });
  });
});
