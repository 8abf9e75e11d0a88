import { unlinkSync } from "node:fs";
import { join } from "node:path";
import { log, snapshotName } from "../lib/log.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { replaceFile, syncDirectory, writeNew } from "../store/files.ts";
import { HOST, SNAPSHOT } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withVm } from "../vm/open.ts";
import { findSnapshot } from "../store/snapshots.ts";
import { sha256 } from "../lib/crypto.ts";

/** Protects snapshots from `rm` and `prune`, or lets them be removed again. */
export async function protectSnapshots(
  context: Context,
  names: readonly string[],
  wanted: boolean,
): Promise<void> {
  await withVm(context, wanted ? "protect snapshots" : "unprotect snapshots", async (vm) => {
    const found = names.map((name) => findSnapshot(vm.hostdir, name));
    for (const { dir } of found) {
      const marker = join(dir, SNAPSHOT.protected);
      const there = lstatOf(marker) !== undefined;
      if (wanted && !there) writeNew(marker, "");
      if (!wanted && there) unlinkSync(marker);
      syncDirectory(dir);
    }
    log.success(
      `${found.map(({ name }) => snapshotName(name)).join(", ")}: ${wanted ? "protected" : "not protected"}`,
    );
  });
}

/** The line of the description in SHA256SUMS. */
const OWN_LINE = new RegExp(`^\\\\?[0-9a-f]{64} [ *]${SNAPSHOT.description}\n`, "gm");

/**
 * Gives a snapshot another description. Two files change, and a kill may come between: the checksum goes first
 * and comes back last, so that `sha256sum -c` passes at any moment. The next `describe` puts back one that is missing.
 */
export async function describeSnapshot(context: Context, name: string, text: string): Promise<void> {
  await withVm(context, "describe a snapshot", async (vm) => {
    const snapshot = findSnapshot(vm.hostdir, name);
    const backups = join(vm.hostdir, HOST.backups);
    const replace = (file: string, content: string): void => {
      replaceFile(join(snapshot.dir, file), content, backups);
    };
    const content = text.trim() === "" ? "" : `${text.trim()}\n`;
    const sums = readSmall(join(snapshot.dir, SNAPSHOT.sums));
    const others = sums?.replaceAll(OWN_LINE, "");
    if (others !== undefined && others !== sums) replace(SNAPSHOT.sums, others);
    replace(SNAPSHOT.description, content);
    const sum = sha256(content);
    if (others !== undefined) replace(SNAPSHOT.sums, `${sum}  ${SNAPSHOT.description}\n${others}`);
    log.success(`${snapshotName(snapshot.name)}: ${content.trim() || "no description"}`);
  });
}
