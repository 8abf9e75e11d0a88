/** How a terminal is given a picture in the text. */
export type ImageProtocol = "kitty" | "iterm2";

type Environment = Record<string, string | undefined>;

const TERMINALS: readonly [name: string, protocol: ImageProtocol, isIt: (env: Environment) => boolean][] = [
  ["kitty", "kitty", (env) => env.TERM === "xterm-kitty" || Boolean(env.KITTY_WINDOW_ID)],
  ["Ghostty", "kitty", (env) => env.TERM === "xterm-ghostty" || env.TERM_PROGRAM === "ghostty"],
  ["Konsole 22.04", "kitty", (env) => Number(env.KONSOLE_VERSION) >= 220_400],
  ["WezTerm", "iterm2", (env) => env.TERM_PROGRAM === "WezTerm"],
  ["iTerm2", "iterm2", (env) => env.TERM_PROGRAM === "iTerm.app" || env.LC_TERMINAL === "iTerm2"],
  ["mintty", "iterm2", (env) => env.TERM_PROGRAM === "mintty"],
];

/** Terminals that show pictures, for people. */
export const IMAGE_TERMINALS: string = TERMINALS.map(([name]) => name).join(", ");

/** Image protocol of the terminal, from the environment; undefined if there is none, as in tmux and screen. */
export function imageProtocolOf(env: Environment): ImageProtocol | undefined {
  if (env.TMUX || env.STY || /^(screen|tmux)/.test(env.TERM ?? "")) return undefined;
  return TERMINALS.find(([, , isIt]) => isIt(env))?.[1];
}

/** kitty takes at most so much of the data at once (its graphics protocol, "Remote client"). */
const CHUNK = 4096;

/** A PNG as the sequence that shows it. */
export function formatInlineImage(protocol: ImageProtocol, png: Buffer): string {
  const data = png.toString("base64");
  if (protocol === "iterm2") return `\x1b]1337;File=inline=1;size=${png.length}:${data}\x07\n`;
  const chunks = data.match(new RegExp(`.{1,${CHUNK}}`, "g")) ?? [];
  const sequences = chunks.map((chunk, index) => {
    const more = index < chunks.length - 1 ? 1 : 0;
    // Show at once, PNG, no answer.
    return `\x1b_G${index === 0 ? "a=T,f=100,q=2," : ""}m=${more};${chunk}\x1b\\`;
  });
  return `${sequences.join("")}\n`;
}
