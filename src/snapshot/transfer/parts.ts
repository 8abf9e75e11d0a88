import { lstatSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../lib/crypto.ts";
import { VmError } from "../../lib/errors.ts";
import { readSmallBytes } from "../../lib/read-file.ts";
import { listDirectory } from "../../store/files.ts";
import { SNAPSHOT } from "../../store/layout.ts";
import { loadSums } from "../../store/checksums.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { findNameProblem, type IndexedFile } from "./index-file.ts";

/** A file to export. */
export interface ExportPart extends IndexedFile {
  /** Absent: the content depends on the checksums of the parts before it. */
  path?: string;
  content?: (sums: ReadonlyMap<string, string>) => Buffer;
}

/** Not listed in SHA256SUMS. */
const BESIDE: readonly string[] = [SNAPSHOT.description, SNAPSHOT.sums];

/**
 * The files of a snapshot, with checksums as far as it has them; its mark of protection stays here.
 * @param index its position in the chain
 */
export function exportPartsOf({ name: snapshot, dir }: Snapshot, index: number): ExportPart[] {
  const sums = loadSums(dir)?.sums;
  const names = listDirectory(dir).filter((name) =>
    sums ? sums.has(name) || BESIDE.includes(name) : name !== SNAPSHOT.protected,
  );
  const ordered = [
    ...names.filter((name) => name !== SNAPSHOT.sums).toSorted(),
    ...names.filter((name) => name === SNAPSHOT.sums),
  ];
  return ordered.map((name) => {
    const path = join(dir, name);
    const stats = lstatSync(path);
    const problem = stats.isFile() ? findNameProblem(name) : `${name} is no regular file`;
    if (problem !== undefined) throw new VmError("io", `cannot export ${snapshot}: ${problem}`);
    const known = sums?.get(name) ?? (BESIDE.includes(name) ? sha256(readSmallBytes(path) ?? "") : undefined);
    return { snapshot: index, name, bytes: stats.size, path, ...(known !== undefined && { sha256: known }) };
  });
}
