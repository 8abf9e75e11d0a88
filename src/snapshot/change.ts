import { unlinkSync } from "node:fs";
import { join } from "node:path";
import { log, snapshotName } from "../lib/log.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { replaceFile, syncDirectory, writeNew } from "../store/files.ts";
import { HOST, SNAPSHOT } from "../store/layout.ts";
import { lockUnread } from "../store/reading.ts";
import type { Context } from "../vm/context.ts";
import { withVm } from "../vm/open.ts";
import { findSnapshot } from "../store/snapshots.ts";
import { sha256 } from "../lib/crypto.ts";

/** Protects snapshots from `rm` and `prune`, or removes the protection. */
export async function protectSnapshots(
  context: Context,
  names: readonly string[],
  wanted: boolean,
): Promise<void> {
  await withVm(context, wanted ? "protect snapshots" : "unprotect snapshots", async (vm) => {
    const found = names.map((name) => findSnapshot(vm.hostdir, name));
    for (const { dir } of found) {
      const marker = join(dir, SNAPSHOT.protected);
      const isProtected = lstatOf(marker) !== undefined;
      if (wanted && !isProtected) writeNew(marker, "");
      if (!wanted && isProtected) unlinkSync(marker);
      syncDirectory(dir);
    }
    log.success(
      `${found.map(({ name }) => snapshotName(name)).join(", ")}: ${wanted ? "protected" : "not protected"}`,
    );
  });
}

/** The line of SHA256SUMS for the description. */
const DESCRIPTION_LINE = new RegExp(`^\\\\?[0-9a-f]{64} [ *]${SNAPSHOT.description}\n`, "gm");

/**
 * Sets a snapshot's description. Its checksum is removed first and added last, so that `sha256sum -c` passes even after a
 * kill between the two; the next `describe` adds a missing one.
 */
export async function describeSnapshot(context: Context, name: string, text: string): Promise<void> {
  await withVm(context, "describe a snapshot", async (vm) => {
    const snapshot = findSnapshot(vm.hostdir, name);
    // It may be compared with its checksums.
    using _unread = lockUnread([snapshot], "cannot describe a snapshot");
    const backups = join(vm.hostdir, HOST.backups);
    const replace = (file: string, content: string): void => {
      replaceFile(join(snapshot.dir, file), content, backups);
    };
    const content = text.trim() === "" ? "" : `${text.trim()}\n`;
    const sums = readSmall(join(snapshot.dir, SNAPSHOT.sums));
    const others = sums?.replaceAll(DESCRIPTION_LINE, "");
    if (others !== undefined && others !== sums) replace(SNAPSHOT.sums, others);
    replace(SNAPSHOT.description, content);
    const sum = sha256(content);
    if (others !== undefined) replace(SNAPSHOT.sums, `${sum}  ${SNAPSHOT.description}\n${others}`);
    log.success(`${snapshotName(snapshot.name)}: ${content.trim() || "no description"}`);
  });
}
