/** Sessions in the README: typed commands and their output, compared with real ones. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "bun:test";
import { checkout } from "./harness.ts";

export interface Step {
  command: string;
  output: string[];
}

const readme = readFileSync(join(checkout, "README.md"), "utf8");

/** The steps of all `console` blocks after the comment `<!-- MARK -->`. */
export const readSteps = (mark: string): Step[] =>
  [...readme.matchAll(new RegExp(`<!-- ${mark} -->\\n\`\`\`console\\n(.*?)\`\`\``, "gs"))].flatMap((match) =>
    parseSession(match[1]!),
  );

/** Commands of a `console` block, each with the output shown for it. */
function parseSession(block: string): Step[] {
  const steps: Step[] = [];
  for (const line of block.trim().split("\n")) {
    if (line.startsWith("$ ")) steps.push({ command: line.slice(2), output: [] });
    else steps.at(-1)!.output.push(line);
  }
  return steps;
}

/** Replaces what differs between runs and machines. */
const normalize = (line: string): string =>
  line
    .replaceAll(/\S*\/vm-[0-9a-f]{8}-[0-9a-f]{8}/g, "WORKDIR")
    .replaceAll(/\S*\/vm\/rescue-x86_64/g, "RESCUE")
    .replaceAll(/a reboot empties [^\s;]+/g, "a reboot empties TMPDIR")
    .replaceAll(/localhost:\d+/g, "localhost:PORT")
    .replaceAll(/\(pid \d+\)/g, "(pid PID)")
    .replaceAll(/\S*\/install\.iso/g, "install.iso'")
    .replaceAll(/\S*\/screen\.png/g, "screen.png")
    .replaceAll(/''+/g, "'")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "TIME")
    .replaceAll(/\d+(\.\d+)? ([KMG]i)?B/g, "SIZE")
    .replaceAll(/(\d+ min )?\d+(\.\d+)? s$/g, "TIME");

const isWarning = (line: string): boolean => line.includes(": warning: ");

/** Messages of long work depend on the machine: `waiting for the guest's ssh …`, `backup S0: 45 %, …`. */
const isProgress = (line: string): boolean =>
  /^(waiting |build the rescue |compare |verify |push |fetch )|: \d+ %, /.test(line);

/** Does the output match the shown one, where a line "…" stands for any number of lines? */
function matches(said: readonly string[], shown: readonly string[]): boolean {
  const [first, ...rest] = shown;
  if (first === undefined) return said.length === 0;
  if (first !== "…") return said[0] === first && matches(said.slice(1), rest);
  return matches(said, rest) || (said.length > 0 && matches(said.slice(1), shown));
}

/**
 * Runs one step by bash, and compares its output.
 * @returns the directory that it ended in
 */
export async function playStep(
  { command, output }: Step,
  cwd: string,
  env: Record<string, string | undefined>,
): Promise<string> {
  const child = Bun.spawn(["bash", "-e", "-c", `exec 2>&1\n${command}\npwd >&3`], {
    cwd,
    env,
    stdio: ["ignore", "pipe", "inherit", "pipe"],
  });
  const [said, where] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(Bun.file(child.stdio[3] as unknown as number).stream()).text(),
  ]);
  expect(await child.exited, `${command}\n${said}`).toBe(0);
  const lines = said.split("\n").filter((line) => line !== "" && !isWarning(line) && !isProgress(line));
  if (!matches(lines.map(normalize), output.map(normalize))) expect(lines, command).toEqual(output);
  return where.trim();
}
