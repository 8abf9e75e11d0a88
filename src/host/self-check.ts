import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { resolve } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { formatSumLine, parseSumLine, parseTaggedSumLine } from "../lib/sha256sums.ts";
import { plain } from "../lib/text.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import type { Context } from "../vm/context.ts";

/**
 * Compares the program's own file with a list of checksums, or prints its checksum as sha256sum would.
 * @throws 66 if there is no such list, 74 if it does not contain the program
 */
export function selfCheck(context: Context, sums: string | undefined): void {
  const program = process.execPath;
  const wanted = sums === undefined ? undefined : readList(resolve(context.cwd, sums));
  const sum = hashFile(program);
  if (!wanted) return context.print(formatSumLine({ sum, name: plain(program) }));
  const name = wanted.get(sum);
  if (name === undefined)
    throw new VmError("io", `cannot verify ${program}: its checksum ${sum} is not in ${sums}`, {
      hint: "use the list of the same release; if it is, copy the program again from a trusted source",
    });
  context.print(`${plain(program)} is ${plain(name)}\n`);
}

/** Pure: names by checksum; other programs write these in capitals. */
export function parseReleaseSums(text: string): Map<string, string> {
  const lines = text.split(/\r?\n/).flatMap((line) => {
    const lower = line.replace(/\b[0-9A-F]{64}\b/i, (sum) => sum.toLowerCase());
    return parseSumLine(lower) ?? parseTaggedSumLine(lower) ?? [];
  });
  return new Map(lines.map(({ sum, name }) => [sum, name]));
}

function readList(path: string): Map<string, string> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new VmError("noInput", `cannot read ${path}: ${reasonOf(error)}`);
  }
  const list = parseReleaseSums(text);
  if (list.size > 0) return list;
  throw new VmError("io", `cannot read ${path}: it contains no checksums`, {
    hint: "use the file SHA256SUMS of a release",
  });
}

/** Computed by this program itself, as there may be no other trusted one. */
function hashFile(path: string): string {
  const hash = createHash("sha256");
  const piece = Buffer.allocUnsafe(1 << 20);
  const fd = openSync(path, "r");
  try {
    for (let length = readSync(fd, piece); length > 0; length = readSync(fd, piece)) {
      hash.update(piece.subarray(0, length));
      throwIfInterrupted();
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest("hex");
}
