/**
 * Reads bash assignment files without executing anything: the values are exactly those of `bash -efu`,
 * or it reports that the file needs bash. (SPEC section 3; bash(1), PARAMETERS and EXPANSION.)
 */
import { Scope, type Lookup, type SettingValue } from "./shell-expand.ts";
import { ShellText, Unreadable } from "./shell-text.ts";
import { refuseShellOwned, takeVariableName, takeWord, type Word } from "./shell-words.ts";

/** One `NAME=…` of a file: the line it starts on, from 1, and the value of the variable after it. */
export interface Assignment {
  name: string;
  value: SettingValue;
  line: number;
}

export type LiteralResult =
  | { kind: "values"; assignments: Assignment[] }
  /** Possibly valid, but beyond this reader. `reason` is a noun phrase. */
  | { kind: "needs-bash"; line: number; reason: string }
  /** Invalid, also for bash. */
  | { kind: "error"; line: number; message: string; hint?: string };

export type ArgumentsResult =
  | { kind: "values"; words: string[] }
  | { kind: "error"; line: number; message: string; hint?: string };

interface Element {
  word: Word;
  line: number;
}

/** An assignment as written, not expanded yet. */
interface Statement {
  name: string;
  line: number;
  append: boolean;
  right: { scalar: Word } | { elements: Element[] };
}

/**
 * Reads a file of assignments (`vm.conf`, `guest.env`).
 * @param text the file, decoded from UTF-8
 * @param lookup values of variables outside the file: earlier files, defaults, the environment
 * @returns all its assignments in order, or the first reason why not. The need for bash takes precedence over unset
 *   variables, as a later command may set or handle them.
 */
export function readAssignments(text: string, lookup: Lookup): LiteralResult {
  try {
    const statements = parseStatements(new ShellText(text));
    const scope = new Scope(lookup);
    return {
      kind: "values",
      assignments: statements.map((statement) => evaluateAssignment(statement, scope)),
    };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const { kind, line, message, hint } = error;
    if (kind === "needs-bash") return { kind, line, reason: message };
    return { kind, line, message, ...(hint !== undefined && { hint }) };
  }
}

/**
 * Reads a file of arguments (`vm.defaults`): shell words, any number a line, a `\` at a line's end allowed.
 * `$NAME`, `${NAME}`, `${NAME-word}`, `${NAME:-word}` and a leading `~` are expanded, without splitting; an
 * empty one without quotes gives no word. There is no globbing, no brace expansion and no execution.
 */
export function readArguments(text: string, lookup: Lookup): ArgumentsResult {
  try {
    const source = new ShellText(text);
    const scope = new Scope(lookup);
    const words: string[] = [];
    for (source.skipLines(); source.peek() !== ""; source.skipLines()) {
      const { line } = source;
      const word = scope.expandInList(takeWord(source, "argument"), "keep", line);
      if (word !== undefined) words.push(word);
    }
    return { kind: "values", words };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const { kind, line, message, hint } = error;
    if (kind === "error") return { kind, line, message, ...(hint !== undefined && { hint }) };
    return {
      kind: "error",
      line,
      message: `not supported here: ${message}`,
      hint: "quote it with '…' to pass it as it is",
    };
  }
}

function parseStatements(source: ShellText): Statement[] {
  const statements: Statement[] = [];
  for (source.skipLines(); source.peek() !== ""; source.skipLines()) {
    statements.push(parseStatement(source));
    source.skipBlanks();
    source.accept(";");
  }
  return statements;
}

/** A setting as this program writes most: read in one step, as every start reads some twenty. */
const WRITTEN = /([A-Za-z_]\w*)="([\w .,:;=@%+/-]*)"(?=\n)/y;

function parseStatement(source: ShellText): Statement {
  const { line } = source;
  const written = source.takeLine(WRITTEN);
  if (written) {
    const [, name, text] = written as unknown as [string, string, string];
    refuseShellOwned(source, name);
    return { name, line, append: false, right: { scalar: [{ kind: "text", text, quoted: true }] } };
  }
  const name = takeVariableName(source);
  const append = source.accept("+");
  if (name === "" || !source.accept("=")) source.needsBash("something other than NAME=value");
  if (!source.accept("(")) return { name, line, append, right: { scalar: takeWord(source, "scalar") } };

  const elements: Element[] = [];
  for (source.skipLines(); !source.accept(")"); source.skipLines()) {
    if (source.peek() === "") source.unterminated("(", line);
    elements.push({ line: source.line, word: takeWord(source, "element") });
  }
  if (!" \t\n;".includes(source.peek())) source.needsBash("text right after an array's )");
  return { name, line, append, right: { elements } };
}

const asList = (value: SettingValue | undefined): readonly string[] =>
  typeof value === "string" ? [value] : (value ?? []);

/** Assigns as bash does: a scalar given to an array becomes its first element and leaves the others. */
function evaluateAssignment({ name, line, append, right }: Statement, scope: Scope): Assignment {
  const old = scope.get(name);
  let value: SettingValue;
  if ("elements" in right) {
    const kept = append ? asList(old) : [];
    scope.charge(kept.length, line);
    const added = right.elements.map((element) => scope.expandInList(element.word, "refuse", element.line));
    value = [...kept, ...added.filter((text) => text !== undefined)];
  } else {
    const text = scope.expandWhole(right.scalar);
    const first = append ? (asList(old)[0] ?? "") + text : text;
    scope.charge(append ? first.length : 0, line);
    if (Array.isArray(old)) scope.charge(old.length, line);
    value = Array.isArray(old) ? old.toSpliced(0, 1, first) : first;
  }
  scope.set(name, value);
  return { name, value, line };
}
