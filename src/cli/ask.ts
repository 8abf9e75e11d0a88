import { writeError } from "../lib/standard-streams.ts";
import { plain } from "../lib/text.ts";

/**
 * Asks for a secret: the question on stderr, the answer from the terminal without an echo.
 * @param over nobody wants to know any more
 * @returns undefined when the user gives none (Ctrl-C, Ctrl-D)
 */
export function askOnTerminal(prompt: string, over: AbortSignal): Promise<string | undefined> {
  const { stdin } = process;
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  let answer = "";
  const take = (piece: Buffer): void => {
    for (const key of piece.toString("utf8")) {
      if (key === "\r" || key === "\n") return finish(answer);
      if (key === "\u0003" || (key === "\u0004" && answer === "")) return finish(undefined);
      if (key === "\u007F" || key === "\b") answer = [...answer].slice(0, -1).join("");
      else answer += key;
    }
  };
  const giveUp = (): void => finish(undefined);
  const finish = (result: string | undefined): void => {
    over.removeEventListener("abort", giveUp);
    stdin.off("data", take);
    stdin.setRawMode(false);
    stdin.pause();
    void writeError("\n");
    resolve(result);
  };
  over.addEventListener("abort", giveUp, { once: true });
  // Before the question: an answer that is there at once is not to be seen either.
  stdin.setRawMode(true);
  void writeError(`${plain(prompt)} `);
  stdin.on("data", take);
  stdin.resume();
  return promise;
}
