import { shellQuote } from "../lib/shell.ts";

/**
 * `run-vm.sh`: the command a person can read and run, one option a line. POSIX sh.
 * @param argv exactly what the program starts
 * @param directory where it is started
 */
export function buildRunScript(argv: readonly string[], directory: string, comment: string): string {
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
    `exec ${[shellQuote(program), ...lines].join(" \\\n  ")}`,
    "",
  ].join("\n");
}
