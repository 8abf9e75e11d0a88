import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect, test } from "bun:test";
import { SETTING_NAMES } from "../../src/config/schema.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { binary, checkout, guests, Sandbox } from "./harness.ts";
import { debianCache, freePort, suite } from "./tools.ts";

const readme = readFileSync(join(checkout, "README.md"), "utf8");

interface Step {
  command: string;
  output: string[];
}

/** Commands of a `console` block, each with the output shown for it. */
function parseSession(block: string): Step[] {
  const steps: Step[] = [];
  for (const line of block.trim().split("\n")) {
    if (line.startsWith("$ ")) steps.push({ command: line.slice(2), output: [] });
    else steps.at(-1)!.output.push(line);
  }
  return steps;
}

/** What differs from run to run and from machine to machine. */
const normalize = (line: string): string =>
  line
    .replaceAll(/\S*\/vm-[0-9a-f]{8}-[0-9a-f]{8}/g, "WORKDIR")
    .replaceAll(/\S*\/vm\/rescue-x86_64/g, "RESCUE")
    .replaceAll(/a reboot empties [^\s;]+/g, "a reboot empties TMPDIR")
    .replaceAll(/localhost:\d+/g, "localhost:PORT")
    .replaceAll(/\S*\/install\.iso/g, "install.iso'")
    .replaceAll(/''+/g, "'")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "TIME")
    .replaceAll(/\d+(\.\d+)? ([KMG]i)?B/g, "SIZE")
    .replaceAll(/\d+(\.\d+)? s$/g, "SECONDS");

const isWarning = (line: string): boolean => line.includes(": warning: ");

/** Does what was said match what is shown, where a line "…" stands for any number of lines? */
function matches(said: readonly string[], shown: readonly string[]): boolean {
  const [first, ...rest] = shown;
  if (first === undefined) return said.length === 0;
  if (first !== "…") return said[0] === first && matches(said.slice(1), rest);
  return matches(said, rest) || (said.length > 0 && matches(said.slice(1), shown));
}

/** Somebody's ssh, with a key and no questions about a host it has never seen. */
const SSH = `#!/bin/sh
exec ${Bun.which("ssh")} -F /dev/null -i "$HOME/.ssh/id_ed25519" -o BatchMode=yes -o ConnectTimeout=20 \\
  -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$@"
`;

suite(
  "the tour",
  () => {
    test("does what it says", async () => {
      using box = new Sandbox();
      copyFileSync((await guests()).installerIso, join(box.home, "install.iso"));
      const bin = join(box.top, "bin");
      for (const directory of [bin, join(box.home, "src"), join(box.home, ".ssh")])
        mkdirSync(directory, { mode: 0o700 });
      await Bun.$`ssh-keygen -q -t ed25519 -N ${""} -f ${box.home}/.ssh/id_ed25519`;
      symlinkSync(checkout, join(box.home, "src/vm"));
      symlinkSync(resolve(binary), join(bin, "vm"));
      writeFileSync(join(bin, "ssh"), SSH, { mode: 0o700 });
      const port = await freePort();
      const blocks = [...readme.matchAll(/<!-- tour -->\n```console\n(.*?)```/gs)].map((match) => match[1]!);
      const steps = blocks.flatMap(parseSession);
      expect(steps.length).toBeGreaterThanOrEqual(13);
      let directory = box.home;
      let background: Promise<void> | undefined;

      async function play({ command, output }: Step): Promise<void> {
        const child = Bun.spawn(["bash", "-e", "-c", `exec 2>&1\n${command}\npwd >&3`], {
          cwd: directory,
          env: box.env({ PATH: `${bin}:${process.env.PATH}`, DEBIAN_CACHE: debianCache() }),
          stdio: ["ignore", "pipe", "inherit", "pipe"],
        });
        const [said, where] = await Promise.all([
          new Response(child.stdout).text(),
          new Response(Bun.file(child.stdio[3] as unknown as number).stream()).text(),
        ]);
        expect(await child.exited, `${command}\n${said}`).toBe(0);
        directory = where.trim();
        const lines = said.split("\n").filter((line) => line !== "" && !isWarning(line));
        if (!matches(lines.map(normalize), output.map(normalize))) expect(lines, command).toEqual(output);
      }

      for (const { command, output } of steps) {
        const step = { command: command.replaceAll("5555", String(port)), output };
        if (command === "wait") await background;
        else if (command.endsWith(" &")) background = play({ ...step, command: step.command.slice(0, -2) });
        else await play(step);
      }
      expect(dirname(directory)).toBe(join(box.home, "vm"));
    }, 900_000);
  },
  ["mmdebstrap", "ssh", "ssh-keygen"],
);

test.each([...SETTING_NAMES])("the settings table names %s", (name) => {
  expect(readme).toMatch(new RegExp(`\\b${name}\\b`));
});

test("the help names every option", async () => {
  using box = new Sandbox();
  const { stdout } = await box.ok(["-h"]);
  for (const { long, hidden } of GLOBAL_OPTIONS) if (!hidden) expect(stdout).toContain(`--${long}`);
});
