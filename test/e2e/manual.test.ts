/** The manual page in the programs that show it. */
import { expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { binary, Sandbox } from "./harness.ts";
import { expectError, names, suite } from "./tools.ts";

const program = resolve(binary);

/** The screen of a terminal of 100 columns after a program has ended. */
async function onTerminal(box: Sandbox, argv: string[], env: Record<string, string>): Promise<string> {
  let screen = "";
  const decoder = new TextDecoder();
  const child = Bun.spawn(argv, {
    cwd: box.host,
    env: box.env({ TERM: "xterm", ...env }),
    terminal: {
      cols: 100,
      rows: 50,
      data: (_terminal, bytes) => void (screen += decoder.decode(bytes, { stream: true })),
    },
  });
  expect(await child.exited).toBe(0);
  child.terminal!.close();
  // Bold and underlined, in the encoding of nroff and of terminals.
  return screen.replaceAll(/.\u0008|\u001B\[[\d;]*m/g, "").replaceAll("\r", "");
}

suite(
  "vm man",
  () => {
    test("mandoc prints no warnings", async () => {
      using box = new Sandbox();
      const { stdout, stderr } = await box.ok(["man"]);
      const page = box.write("vm.1", stdout);
      expect(stderr).toBe("");
      const lint = await Bun.$`mandoc -Tlint ${page}`.nothrow().quiet();
      expect(lint.stdout.toString() + lint.stderr.toString()).toBe("");
    });

    test("groff prints no warnings, and the whole page", async () => {
      using box = new Sandbox();
      const { stdout } = await box.ok(["man"]);
      const page = box.write("vm.1", stdout);
      for (const LC_ALL of ["C", "C.UTF-8"]) {
        const { stderr } = await Bun.$`man --warnings -l ${page}`.env({ ...box.env(), LC_ALL }).quiet();
        expect(stderr.toString()).toBe("");
      }
      const shown = await Bun.$`man --warnings -l ${page}`
        .env({ ...box.env(), MANWIDTH: "100", LC_ALL: "C.UTF-8" })
        .quiet();
      const text = shown.stdout.toString().replaceAll(/.\u0008/g, "");
      expect(text).toMatch(/^NAME\n +vm - create, run/m);
      expect(text).toMatch(/^ +-D, --disks=TYPE=SIZE,\.\.\.$/m);
      expect(text).toMatch(/^ +vm -c 8 -m 4G @create WS10 \/iso\/image\.iso @run @backup$/m);
      expect(text).toMatch(/Default:\s+\\033\[0m\./);
    });

    test("on a terminal opens man(1)", async () => {
      using box = new Sandbox();
      const env = { PATH: process.env.PATH!, MANPAGER: "cat", PAGER: "cat" };
      const text = await onTerminal(box, [program, "man"], env);
      expect(text).toMatch(/^NAME\n +vm - create, run/m);
      expect(text).not.toContain(".SH");
      expect([names(box.host), names(box.tmp)]).toEqual([[], []]);
    });

    test("without man(1) prints its source", async () => {
      using box = new Sandbox();
      const text = await onTerminal(box, [program, "man"], { PATH: "/nonexistent" });
      expect(text).toStartWith('.TH "VM" "1" ');
    });

    test("is the manual of the program's name", async () => {
      using box = new Sandbox();
      const link = join(box.top, "kvm");
      symlinkSync(program, link);
      expect((await box.ok(["man"], { program: [link] })).stdout).toStartWith('.TH "KVM" "1" ');
      expectError(await box.vm(["man", "x"]), 64, /one argument too many/);
    });
  },
  ["man", "mandoc"],
);
