/** The result of a command, and problems with it in any situation. */

export interface Ran {
  argv: readonly string[];
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  seconds: number;
  hung: boolean;
}

/** Text that must never occur in output. */
export function badSpeech({ argv, status, stdout, stderr, hung, signal, seconds }: Ran): string[] {
  const words = argv.join(" ");
  const wrong: string[] = [];
  if (hung) wrong.push(`${words}: hung, ended after ${Math.round(seconds)} s`);
  if (status === 70) wrong.push(`${words}: status 70: ${lastLines(stderr)}`);
  if (status !== 70 && /internal error/.test(stderr)) wrong.push(`${words}: ${lastLines(stderr)}`);
  if (/^\s+at .*:\d+/m.test(stdout + stderr)) wrong.push(`${words}: a stack trace: ${lastLines(stderr, 6)}`);
  if (/panic\(|Bun has crashed/.test(stderr) || ["SIGSEGV", "SIGABRT", "SIGILL"].includes(signal ?? ""))
    wrong.push(`${words}: crashed: ${signal} ${lastLines(stderr)}`);
  return wrong;
}

export const lastLines = (text: string, count = 3): string =>
  text.trim().split("\n").slice(-count).join(" | ");

/** The problem if a command that must succeed fails. */
export function notDone(when: string, ran: Ran): string[] {
  const speech = badSpeech(ran);
  if (ran.status !== 0 && speech.length === 0)
    speech.push(`status ${ran.status ?? ran.signal}: ${lastLines(ran.stderr || ran.stdout)}`);
  return speech.map((text) => `${when}: ${ran.argv.join(" ")}: ${text}`);
}
