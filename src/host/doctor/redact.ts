/** What must not get out with a report. */
export interface Private {
  /** Its paths become `~`. */
  homes: readonly string[];
  /** Become `USER`. */
  users: readonly string[];
  /** Become `HOST` behind an `@`; elsewhere a host's name may be any word. */
  hosts: readonly string[];
  /** Become `***`. */
  secrets: readonly string[];
}

/** A system's account says nothing of a person. */
const NOBODYS = new Set(["", "root"]);

/** The longest first: one may be a part of another. */
const longest = (words: readonly string[]): string[] => words.toSorted((a, b) => b.length - a.length);

/** Pure: takes secrets, home directories and user names out of a text. */
export function redact(text: string, { homes, users, hosts, secrets }: Private): string {
  let clean = text;
  for (const secret of longest(secrets)) if (secret !== "") clean = clean.replaceAll(secret, "***");
  for (const home of longest(homes)) if (!/^\/*$/.test(home)) clean = replaceWord(clean, home, "~");
  // Other people's, too.
  clean = clean.replaceAll(/(?<![\p{L}\p{N}_.~-])\/home\/[^/\s:;,"')\]]+/gu, "/home/USER");
  for (const host of longest(hosts))
    if (host !== "")
      clean = clean.replaceAll(new RegExp(`@${RegExp.escape(host)}(?![\\p{L}\\p{N}_-])`, "gu"), "@HOST");
  for (const user of longest(users)) if (!NOBODYS.has(user)) clean = replaceWord(clean, user, "USER");
  return clean;
}

/** Not within a longer name. */
const replaceWord = (text: string, word: string, by: string): string =>
  text.replaceAll(new RegExp(`(?<![\\p{L}\\p{N}_])${RegExp.escape(word)}(?![\\p{L}\\p{N}_])`, "gu"), by);
