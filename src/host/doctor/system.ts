import { readFileSync } from "node:fs";
import { readAssignments } from "../../config/literal.ts";
import { scalarOf } from "../../config/values.ts";
import { familyOf, type Family } from "../../lib/packages.ts";

/** Facts from os-release(5). */
export interface System {
  /** `Debian GNU/Linux 12 (bookworm)`; empty if unknown. */
  name: string;
  /** The family that it shares package names with. */
  family: Family | undefined;
  /** VERSION_ID, if it is a number. */
  release?: number;
}

const FILES = ["/etc/os-release", "/usr/lib/os-release"];

export function readSystem(files: readonly string[] = FILES): System {
  for (const file of files) {
    try {
      return parseOsRelease(readFileSync(file, "utf8"));
    } catch {
      // Missing: try the next one.
    }
  }
  return { name: "", family: undefined };
}

/** The file consists of shell assignments. */
export function parseOsRelease(text: string): System {
  const read = readAssignments(text, () => undefined);
  const all = read.kind === "values" ? read.assignments : [];
  const valueOf = (name: string): string => scalarOf(all.findLast((one) => one.name === name)?.value ?? "");
  const ids = `${valueOf("ID")} ${valueOf("ID_LIKE")}`.split(/\s+/).filter(Boolean);
  const version = valueOf("VERSION_ID");
  return {
    name: valueOf("PRETTY_NAME") || valueOf("ID"),
    family: familyOf(ids),
    ...(/^\d+(\.\d+)?$/.test(version) && { release: Number(version) }),
  };
}
