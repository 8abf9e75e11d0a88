/** Finds words of scripts/words.txt in sources, scripts, jobs, READMEs, test titles and comments: file, line, and what to write. */
import { readFileSync } from "node:fs";

interface Rule {
  pattern: RegExp;
  instead: string;
}

/** The rules of words.txt. @throws Error for a line that is not one */
export const parseRules = (text: string): Rule[] =>
  text
    .split("\n")
    .filter((line) => line.trim() !== "" && !line.startsWith("#"))
    .map((line) => {
      const [pattern, instead] = line.split(" -> ");
      if (!pattern || !instead) throw new Error(`words.txt: not PATTERN -> INSTEAD: ${line}`);
      return { pattern: new RegExp(`\\b(?:${pattern})\\b`, "i"), instead };
    });

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
  const rules = parseRules(readFileSync("scripts/words.txt", "utf8"));
  const listed = Bun.spawnSync(["git", "ls-files", "-z", "README.md", "src", "jobs", "scripts", "test"]);
  const files = listed.stdout
    .toString()
    .split("\0")
    .filter(
      (file) =>
        file !== "" &&
        !/\.(svg|args|json|txt|png|patch)$|^scripts\/licenses\/|^test\/(fixtures|golden)\/|^test\/words\.test\.ts$/.test(
          file,
        ),
    );
  const found = files.flatMap((file) =>
    findWords(file, readFileSync(file, "utf8"), rules).map((finding) => ({ file, ...finding })),
  );
  for (const { file, line, found: words, instead } of found)
    console.log(`${file}:${line}: "${words}": write: ${instead}`);
  console.log(`${files.length} files checked, ${found.length} words found`);
  if (found.length > 0 || files.length === 0) process.exit(1);
}
