import { mkdirSync, readlinkSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { refuseTaken } from "./claim.ts";
import { type Mark, newMark } from "./mark-types.ts";
import { remove } from "./remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import {
  afterCommit,
  fileError,
  listDirectory,
  removeQuietly,
  replaceSymlink,
  syncDirectory,
} from "./files.ts";
import { HOST, isDiskName, PARTIAL, READY, WORK } from "./layout.ts";
import { writeMark } from "./mark.ts";
import type { Work } from "./workdir.ts";
import {
  directoryOf,
  finishReplacing,
  linkBase,
  rollForward,
  UNFINISHED,
  workPrefix,
} from "./working-files.ts";
import { isWorkingFile } from "./working-names.ts";
import { randomBytes } from "../lib/crypto.ts";

/** New working files under construction, invisible before `commit`. */
export interface Stage {
  readonly dir: string;
  /** Replaces the old ones atomically (in place: with a redo log). Returns WORKDIR. */
  commit(mark?: Partial<Mark>): string;
  /** Removes them. */
  abort(): void;
}

/**
 * Starts new working files: in `tmpdir`, or in HOSTDIR itself.
 * @throws 73 if HOSTDIR has unrelated files of such names
 */
export function stageWork(hostdir: string, place: { tmpdir: string } | "inplace", old: Work): Stage {
  return place === "inplace" ? stageInplace(hostdir, old) : stageInTmp(hostdir, place.tmpdir, old);
}

/** A disk that is a symlink is replaced; its target is not removed. */
function warnAboutLinks(old: Work): void {
  if (old.state !== "present") return;
  for (const name of listDirectory(old.dir).filter(isDiskName)) {
    const path = join(old.dir, name);
    if (lstatOf(path)?.isSymbolicLink())
      log.warn(
        `the disk ${path} was a symlink: its target ${readlinkSync(path)} is kept, but no longer used`,
      );
  }
}

function stageInTmp(hostdir: string, tmpdir: string, old: Work): Stage {
  const final = join(tmpdir, workPrefix(hostdir) + randomBytes(4).toString("hex"));
  const dir = final + UNFINISHED;
  try {
    mkdirSync(dir, { mode: 0o700 });
    symlinkSync(hostdir, join(dir, WORK.hostLink));
  } catch (error) {
    removeQuietly(dir);
    throw new VmError("cannotCreate", `cannot create working files in ${tmpdir}: ${reasonOf(error)}`, {
      cause: error,
      hint: "set TMPDIR to a directory of yours with space for the disks, or keep them in HOSTDIR: --inplace",
    });
  }
  return {
    dir,
    commit: (mark = {}) => {
      const replaced = { replaces: directoryOf(old) };
      warnAboutLinks(old);
      try {
        const disks = listDirectory(dir).filter(isDiskName);
        writeMark(dir, { ...newMark(), ...mark, ...replaced, disks, unlinked: true });
        linkBase(dir, mark);
        syncDirectory(dir);
        renameSync(dir, final);
        syncDirectory(tmpdir);
        replaceSymlink(join(hostdir, HOST.workLink), final);
      } catch (error) {
        removeQuietly(final);
        throw error;
      }
      afterCommit(`the working files are in ${final}`, () => {
        syncDirectory(hostdir);
        finishReplacing(hostdir, final);
      });
      return final;
    },
    abort: () => removeQuietly(dir),
  };
}

function stageInplace(hostdir: string, old: Work): Stage {
  const dir = join(hostdir, `${PARTIAL}work`);
  refuseTaken(hostdir);
  try {
    remove(dir);
    mkdirSync(dir, { mode: 0o700 });
  } catch (error) {
    throw fileError(`cannot create working files in ${hostdir}`, error);
  }
  return {
    dir,
    commit: (mark = {}) => {
      const replaced = old.state === "present" && old.inplace ? {} : { replaces: directoryOf(old) };
      warnAboutLinks(old);
      const files = listDirectory(dir);
      const kept = { files, owns: files.filter(isWorkingFile), disks: files.filter(isDiskName) };
      writeMark(dir, { ...newMark(), ...mark, ...replaced, ...kept });
      syncDirectory(dir);
      renameSync(dir, join(hostdir, READY));
      afterCommit(`the working files are complete in ${join(hostdir, READY)}`, () => {
        syncDirectory(hostdir);
        rollForward(hostdir);
      });
      return hostdir;
    },
    abort: () => removeQuietly(dir),
  };
}
