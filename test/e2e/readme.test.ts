import { copyFileSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect, test } from "bun:test";
import { SETTING_NAMES } from "../../src/config/schema.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { binary, guests, Sandbox } from "./harness.ts";

const readme = readFileSync(resolve(import.meta.dir, "../../README.md"), "utf8");

/** Commands of a `console` block, each with the output shown for it. */
function parseSession(block: string): { command: string; output: string[] }[] {
  const steps: { command: string; output: string[] }[] = [];
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
    .replaceAll(/\S*\/install\.iso/g, "install.iso'")
    .replaceAll(/''+/g, "'")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "TIME")
    .replaceAll(/\d+(\.\d+)? ([KMG]i)?B/g, "SIZE")
    .replaceAll(/\d+(\.\d+)? s$/g, "SECONDS");

const isWarning = (line: string): boolean => line.includes(": warning: ");

test("the tour does what it says", async () => {
  using box = new Sandbox();
  copyFileSync((await guests()).installerIso, join(box.home, "install.iso"));
  const bin = join(box.top, "bin");
  await Bun.$`mkdir ${bin}`;
  symlinkSync(resolve(binary), join(bin, "vm"));
  const blocks = [...readme.matchAll(/<!-- tour -->\n```console\n(.*?)```/gs)].map((match) => match[1]!);
  const steps = blocks.flatMap(parseSession);
  expect(steps.length).toBeGreaterThanOrEqual(7);
  let directory = box.home;
  for (const { command, output } of steps) {
    const child = Bun.spawn(["bash", "-e", "-c", `${command}\npwd >&3`], {
      cwd: directory,
      env: box.env({ PATH: `${bin}:${process.env.PATH}` }),
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    const [said, told, where] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      new Response(Bun.file(child.stdio[3] as unknown as number).stream()).text(),
    ]);
    expect(await child.exited, `${command}\n${told}`).toBe(0);
    directory = where.trim();
    const lines = (told + said)
      .trim()
      .split("\n")
      .filter((line) => line !== "" && !isWarning(line));
    expect(lines.map(normalize), command).toEqual(output.map(normalize));
  }
  expect(dirname(directory)).toBe(join(box.home, "vm"));
});

test.each([...SETTING_NAMES])("the settings table names %s", (name) => {
  expect(readme).toMatch(new RegExp(`\\b${name}\\b`));
});

test("the help names every option", async () => {
  using box = new Sandbox();
  const { stdout } = await box.ok(["-h"]);
  for (const { long, hidden } of GLOBAL_OPTIONS) if (!hidden) expect(stdout).toContain(`--${long}`);
});
