/** Shells on a pseudo-terminal, with typed text, Tab and Enter. */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { binary, until, type Sandbox } from "./harness.ts";

export type ShellName = "bash" | "zsh" | "fish";

/** Marks Tab in a typed line. */
export const TAB = "⇥";

/** A directory for PATH with the program in it, under the name `vm` or another. */
export function programIn(box: Sandbox, prog = "vm"): string {
  const bin = join(box.top, "bin");
  mkdirSync(bin, { recursive: true });
  if (!existsSync(join(bin, prog))) symlinkSync(resolve(binary), join(bin, prog));
  return bin;
}

/** How each is started, what it reads first, and how it loads the script. */
const SHELLS: Readonly<
  Record<ShellName, { argv: string[]; file: string; start: string; load: (prog: string) => string }>
> = {
  bash: {
    argv: ["bash", "--noprofile", "--rcfile", "FILE", "-i"],
    file: "rc.bash",
    start: "PS1='$ '",
    load: (prog) => `source <(${prog} completion bash)`,
  },
  zsh: {
    argv: ["zsh", "-i"],
    file: ".zshrc",
    start: "PS1='$ '\nautoload -Uz compinit && compinit -u -D",
    load: (prog) => `source <(${prog} completion zsh)`,
  },
  fish: {
    argv: ["fish", "--no-config", "-i", "-C", "source FILE"],
    file: "rc.fish",
    start: "function fish_prompt; echo '$ '; end",
    load: (prog) => `${prog} completion fish | source`,
  },
};

/** A function replaces the program, and records its arguments. */
function noter(shell: ShellName, prog: string, note: string): string {
  const body = (words: string): string =>
    `printf '%s\\0' ${words} >'${note}.new'; mv '${note}.new' '${note}'`;
  return shell === "fish" ? `function ${prog}; ${body("$argv")}; end` : `${prog}() { ${body('"$@"')}; }`;
}

export interface SessionOptions {
  prog?: string;
  /** Replaces the lines by which the shell loads the script. */
  load?: string;
}

/** A running shell in a sandbox's HOSTDIR. */
export class ShellSession implements Disposable {
  readonly #shell;
  readonly #note: string;
  /** All its output. */
  screen = "";

  constructor(box: Sandbox, name: ShellName, { prog = "vm", load }: SessionOptions = {}) {
    const { argv, file, start, load: usual } = SHELLS[name];
    const place = join(box.top, `shell-${name}`);
    mkdirSync(place, { recursive: true });
    this.#note = join(place, "note");
    writeFileSync(
      join(place, file),
      `${[start, load ?? usual(prog), noter(name, prog, this.#note)].join("\n")}\n`,
    );
    const decoder = new TextDecoder();
    const show = (bytes: Uint8Array): void => void (this.screen += decoder.decode(bytes, { stream: true }));
    this.#shell = Bun.spawn(
      argv.map((word) => word.replace("FILE", join(place, file))),
      {
        cwd: box.host,
        env: box.env({ PATH: `${programIn(box, prog)}:${process.env.PATH}`, TERM: "xterm", ZDOTDIR: place }),
        terminal: { cols: 200, rows: 50, data: (_terminal, bytes) => show(bytes) },
      },
    );
  }

  /** Types a line and Enter. @returns the arguments that the program would have got */
  async type(line: string): Promise<string[]> {
    rmSync(this.#note, { force: true });
    this.#shell.terminal!.write(`${line.replaceAll(TAB, "\t")}\r`);
    await until(`the words of ${line}`, () => existsSync(this.#note));
    return readFileSync(this.#note, "utf8").split("\0").slice(0, -1);
  }

  [Symbol.dispose](): void {
    this.#shell.kill("SIGKILL");
    this.#shell.terminal!.close();
  }
}
