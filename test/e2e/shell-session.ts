/** Shells on a pseudo-terminal, in which somebody types, presses Tab and Enter. */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { binary, until, type Sandbox } from "./harness.ts";

export type ShellName = "bash" | "zsh" | "fish";

/** Where Tab is pressed in a typed line. */
export const TAB = "⇥";

/** Directory with the program under the name `vm`, or another. */
export function programIn(box: Sandbox, name = "vm"): string {
  const bin = join(box.top, "bin");
  mkdirSync(bin, { recursive: true });
  if (!existsSync(join(bin, name))) symlinkSync(resolve(binary), join(bin, name));
  return bin;
}

/** What each reads before the first line: the script, and a function that notes the words instead of running the program. */
const START: Readonly<
  Record<ShellName, (note: string, more: string) => [argv: string[], file: string, text: string]>
> = {
  bash: (note, more) => [
    ["bash", "--noprofile", "--rcfile", "rc.bash", "-i"],
    "rc.bash",
    `PS1='$ '\n${more}\nsource <(vm completion bash)\nvm() { printf '%s\\0' "$@" >${note}.new; mv ${note}.new ${note}; }\n`,
  ],
  zsh: (note, more) => [
    ["zsh", "-i"],
    ".zshrc",
    `PS1='$ '\nautoload -Uz compinit && compinit -u -D\n${more}\nsource <(vm completion zsh)\nvm() { printf '%s\\0' "$@" >${note}.new; mv ${note}.new ${note} }\n`,
  ],
  fish: (note, more) => [
    ["fish", "--no-config", "-i", "-C", "source rc.fish"],
    "rc.fish",
    `function fish_prompt; echo '$ '; end\n${more}\nvm completion fish | source\nfunction vm; printf '%s\\0' $argv >${note}.new; mv ${note}.new ${note}; end\n`,
  ],
};

/** A shell at work in a sandbox's HOSTDIR. */
export class ShellSession implements Disposable {
  readonly #shell;
  readonly #note: string;
  /** What it showed. */
  screen = "";

  /** @param more lines of its own for the shell's start */
  constructor(box: Sandbox, name: ShellName, more = "") {
    const place = join(box.top, `shell-${name}`);
    mkdirSync(place, { recursive: true });
    this.#note = join(place, "note");
    const [argv, file, text] = START[name](this.#note, more);
    writeFileSync(join(place, file), text);
    const decoder = new TextDecoder();
    this.#shell = Bun.spawn(
      argv.map((word) => word.replace(/\brc\.(bash|fish)$/, join(place, "rc.$1"))),
      {
        cwd: box.host,
        env: box.env({ PATH: `${programIn(box)}:${process.env.PATH}`, TERM: "xterm", ZDOTDIR: place }),
        terminal: {
          cols: 200,
          rows: 50,
          data: (_terminal, bytes) => void (this.screen += decoder.decode(bytes, { stream: true })),
        },
      },
    );
  }

  /** Types a line and Enter. @returns the words that the program would have been given */
  async type(line: string): Promise<string[]> {
    rmSync(this.#note, { force: true });
    this.#shell.terminal!.write(`${line.replaceAll(TAB, "\t")}\r`);
    await until(`words of: ${line}\n${this.screen.slice(-2000)}`, () => existsSync(this.#note), 20);
    return readFileSync(this.#note, "utf8").split("\0").slice(0, -1);
  }

  [Symbol.dispose](): void {
    this.#shell.kill("SIGKILL");
    this.#shell.terminal!.close();
  }
}
