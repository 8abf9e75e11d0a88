/** How a command of the program ended, and what is wrong with that whatever it was disturbed by. */

export interface Ran {
  argv: readonly string[];
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  seconds: number;
  hung: boolean;
}

/** What no output may show, whatever happens. */
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

/** What is wrong when a command that must succeed does not. */
export function notDone(when: string, ran: Ran): string[] {
  const speech = badSpeech(ran);
  if (ran.status !== 0 && speech.length === 0)
    speech.push(`status ${ran.status ?? ran.signal}: ${lastLines(ran.stderr || ran.stdout)}`);
  return speech.map((text) => `${when}: ${ran.argv.join(" ")}: ${text}`);
}
