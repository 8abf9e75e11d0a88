import { shellQuote } from "../lib/shell.ts";

/**
 * Builds `run-vm.sh`, to read qemu's command line or run it by hand: one option a line, for a POSIX shell.
 * @param argv the command line that the program starts
 * @param directory its working directory
 * @param before lines that start other programs first
 */
export function buildRunScript(
  argv: readonly string[],
  directory: string,
  comment: string,
  before: readonly string[] = [],
): string {
  const [program = "", ...rest] = argv;
  const lines: string[] = [];
  for (const word of rest) {
    const quoted = shellQuote(word);
    if (/^-[a-z]/.test(word) || lines.length === 0) lines.push(quoted);
    else lines[lines.length - 1] += ` ${quoted}`;
  }
  return [
    "#!/bin/sh",
    ...comment.split("\n").map((line) => `# ${line}`),
    `cd ${shellQuote(directory)} || exit`,
    ...before,
    `exec ${[shellQuote(program), ...lines].join(" \\\n  ")}`,
    "",
  ].join("\n");
}
