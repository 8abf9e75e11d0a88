/** What a report must not contain. */
export interface Private {
  /** Home directories, replaced by `~`. */
  homes: readonly string[];
  /** Replaced by `USER`. */
  users: readonly string[];
  /** Replaced by `HOST` after an `@`; elsewhere a host name may be any word. */
  hosts: readonly string[];
  /** Replaced by `***`. */
  secrets: readonly string[];
}

/** System accounts are not personal. */
const NOBODYS = new Set(["", "root"]);

/** Longest first: one may be part of another. */
const longest = (words: readonly string[]): string[] => words.toSorted((a, b) => b.length - a.length);

/** Pure: replaces secrets, home directories and user names in a text. */
export function redact(text: string, { homes, users, hosts, secrets }: Private): string {
  let clean = text;
  for (const secret of longest(secrets)) if (secret !== "") clean = clean.replaceAll(secret, "***");
  for (const home of longest(homes)) if (!/^\/*$/.test(home)) clean = replaceWord(clean, home, "~");
  // Other users' as well.
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
