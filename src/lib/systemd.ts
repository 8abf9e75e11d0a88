/** Text as systemd's files want it. */

const hex = (byte: number): string => `\\x${byte.toString(16).padStart(2, "0")}`;

/** What may stand in a unit's name as it is (systemd-escape(1), unit_name_escape). */
const PLAIN = /^[A-Za-z0-9:_.]$/;

/** `systemd-escape --path`: `/srv/my vm` is `srv-my\x20vm`. */
export function escapePath(path: string): string {
  const parts = path.split("/").filter(Boolean);
  if (parts.length === 0) return "-";
  const escaped = parts.map((part) =>
    [...new TextEncoder().encode(part)]
      .map((byte) => {
        const letter = String.fromCharCode(byte);
        return PLAIN.test(letter) ? letter : hex(byte);
      })
      .join(""),
  );
  return escaped.join("-").replace(/^\./, hex(0x2e));
}

/** A value in which `%` is no specifier (systemd.unit(5)), on one line; a `\` at its end would go on in the next. */
export const escapeValue = (text: string): string =>
  text
    .replaceAll(/\p{Cc}/gu, "?")
    .replaceAll("%", "%%")
    .replace(/\\$/, "?");

/** One word of a list of words, such as Environment= has. */
export function quoteWord(word: string): string {
  const escaped = word
    .replaceAll(/[\\"]/g, String.raw`\$&`)
    .replaceAll(/\p{Cc}/gu, (letter) => [...new TextEncoder().encode(letter)].map(hex).join(""))
    .replaceAll("%", "%%");
  return `"${escaped}"`;
}

/** A command (systemd.service(5), "Command lines"): in what follows the program `$` would be a variable. */
export const quoteCommand = ([program, ...args]: readonly string[]): string =>
  [quoteWord(program!), ...args.map((arg) => quoteWord(arg).replaceAll("$", "$$$$"))].join(" ");
