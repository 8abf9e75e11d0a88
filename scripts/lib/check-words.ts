/** Finds words of scripts/words.txt in sources, scripts, jobs, READMEs, test titles and comments: file, line, and what to write. */
import { readFileSync } from "node:fs";

interface Rule {
  pattern: RegExp;
  instead: string;
}

const linesOf = (part: string): string[] =>
  part.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));

/** The table of words, and the places that are not checked yet. */
export function parseWords(text: string): { rules: Rule[]; notYet: string[] } {
  const [words = "", places = ""] = text.split("\n[not yet]\n");
  const rules = linesOf(words).map((line) => {
    const [pattern, instead] = line.split(" -> ");
    if (!pattern || !instead) throw new Error(`words.txt: not PATTERN -> INSTEAD: ${line}`);
    return { pattern: new RegExp(`\\b(?:${pattern})\\b`, "i"), instead };
  });
  return { rules, notYet: linesOf(places) };
}

/** The prose of a line of TypeScript: comments and text within quotes, not names. */
function proseOf(line: string): string {
  if (/^\s*(?:\/?\*|\/\/)/.test(line)) return line;
  const quoted = line.match(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`/g) ?? [];
  const comment = /\s\/\/ .*$/.exec(line)?.[0] ?? "";
  return [...quoted, comment].join(" ");
}

/** Of a test file only titles and comments are checked. */
const TITLE = /^\s*(?:(?:test|describe|suite)\b.*\(|[\])}]+\(|\[)?\s*["'`]|^\s*(?:\/?\*|\/\/)/;

export interface Finding {
  line: number;
  found: string;
  instead: string;
}

export function findWords(file: string, text: string, rules: readonly Rule[]): Finding[] {
  return text.split("\n").flatMap((line, index) => {
    if (file.startsWith("test/") && !TITLE.test(line)) return [];
    const content = file.endsWith(".ts") ? proseOf(line) : line;
    return rules.flatMap(({ pattern, instead }) => {
      const found = pattern.exec(content)?.[0];
      return found === undefined ? [] : [{ line: index + 1, found, instead }];
    });
  });
}

if (import.meta.main) {
  const { rules, notYet } = parseWords(readFileSync("scripts/words.txt", "utf8"));
  const listed = Bun.spawnSync(["git", "ls-files", "-z", "README.md", "src", "jobs", "scripts", "test"]);
  const files = listed.stdout.toString().split("\0").filter(Boolean);
  const checked = files.filter(
    (file) =>
      !/\.(svg|args|json|txt|png)$|^scripts\/licenses\/|^test\/(fixtures|golden)\/|^test\/words\.test\.ts$/.test(
        file,
      ) && !notYet.some((place) => file.startsWith(place)),
  );
  let count = 0;
  for (const file of checked)
    for (const { line, found, instead } of findWords(file, readFileSync(file, "utf8"), rules)) {
      console.log(`${file}:${line}: "${found}": write: ${instead}`);
      count++;
    }
  const unused = notYet.filter((place) => !files.some((file) => file.startsWith(place)));
  for (const place of unused) console.log(`scripts/words.txt: [not yet] ${place}: no such file`);
  console.log(
    `${checked.length} files checked, ${count} words found, ${notYet.length} places not yet checked`,
  );
  if (count + unused.length > 0 || checked.length === 0) process.exit(1);
}
