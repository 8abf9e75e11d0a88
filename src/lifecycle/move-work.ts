import { linkSync, lstatSync, statSync, type Stats } from "node:fs";
import { dirname, join, resolve, sep } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { formatSize } from "../lib/size.ts";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import {
  allocatedBytes,
  fileError,
  listDirectory,
  requireSpace,
  syncDirectory,
  syncFile,
} from "../store/files.ts";
import { HOST, PARTIAL, RUN_FILES, WORK } from "../store/layout.ts";
import { updateMark } from "../store/mark.ts";
import { stageWork } from "../store/stage.ts";
import type { Workdir } from "../store/workdir.ts";
import { listOwned } from "../store/working-files.ts";
import { isDirectoryName, isStagedName } from "../store/working-names.ts";
import type { Context } from "../vm/context.ts";
import { requireWork } from "../vm/find.ts";
import { refuseRunning, refuseSuspended } from "../vm/in-use.ts";
import { withVm } from "../vm/open.ts";
import { isVolatile } from "../vm/volatile.ts";

/** Not moved: what belongs to a run, and what new working files have of their own. */
const LEFT: ReadonlySet<string> = new Set([
  ...RUN_FILES,
  WORK.hostLink,
  WORK.baseLink,
  WORK.mark,
  WORK.resumed,
]);

/**
 * Moves the working files to another directory. They are complete in one of both at any time.
 * @param to directory to move them to; absent: HOSTDIR itself (`--inplace`)
 * @throws 64 for a directory in the working files, 66 without it, 73 without space, 74 for unexpected files, 75 while the
 *   VM runs
 */
export const moveWork = (context: Context, to: string | undefined): Promise<void> =>
  withVm(context, "move the working files", async (vm) => {
    const { hostdir } = vm;
    const work = requireWork(vm, "move the working files");
    await refuseRunning(work, "move the working files");
    refuseSuspended(work, "move the working files");
    const parent = resolveParent(context, hostdir, work, to);
    const present = work.inplace ? hostdir : realPath(dirname(work.dir));
    if (parent === present && (parent === hostdir) === work.inplace)
      return log.info(`the working files are in ${work.dir} already`);
    const names = listMoved(hostdir, work, parent === hostdir);
    const files = names.map((name) => lstatSync(join(work.dir, name)));
    const bytes = files.reduce((sum, stats) => sum + allocatedBytes(stats), 0);
    if (lstatSync(work.dir).dev !== statSync(parent).dev)
      requireSpace(parent, bytes, "move the working files", "snapshots");
    // By this the next command finds what a killed one has left there.
    updateMark(work.dir, { movingTo: parent });
    const stage = stageWork(hostdir, parent === hostdir ? "inplace" : { tmpdir: parent }, work);
    try {
      for (const [index, name] of names.entries()) await moveFile(work.dir, stage.dir, name, files[index]!);
      const {
        vm: _format,
        movingTo: _moving,
        replaces: _replaces,
        files: _files,
        owns: _owns,
        ...mark
      } = work.mark;
      const dir = stage.commit(mark);
      log.success(`moved the working files from ${work.dir} to ${dir}: ${formatSize(bytes)}`);
    } catch (error) {
      stage.abort();
      throw fileError("cannot move the working files", error);
    }
    if (isVolatile(parent)) log.warn(`a reboot empties ${parent}`);
  });

/** The directory that is to contain them, symlinks resolved: HOSTDIR means HOSTDIR itself. */
function resolveParent({ cwd }: Context, hostdir: string, work: Workdir, to: string | undefined): string {
  if (to === undefined) return hostdir;
  const path = realPath(resolve(cwd, to));
  if (path === undefined || !statSync(path).isDirectory())
    throw new VmError("noInput", `cannot move the working files: no such directory: ${to}`, {
      hint: `create it: mkdir -m 700 -p ${shellQuote(to)}`,
    });
  if (!work.inplace && `${path}${sep}`.startsWith(`${realPath(work.dir)}${sep}`))
    throw new VmError("usage", `cannot move the working files: ${path} is in them`, {
      hint: `move them to the VM's own directory: ${commandLine("move-work")}`,
    });
  return path;
}

/** @throws 74 for a file that would be lost, or that would not be found by its name */
function listMoved(hostdir: string, work: Workdir, inplace: boolean): string[] {
  const settings = work.inplace && lstatOf(join(hostdir, HOST.guestEnv)) ? [HOST.guestEnv] : [];
  const all = work.inplace ? [...listOwned(hostdir, work.mark), ...settings] : listDirectory(work.dir);
  const names = all.filter((name) => !LEFT.has(name) && !name.startsWith(PARTIAL));
  for (const name of names) {
    const path = join(work.dir, name);
    const stats = lstatSync(path);
    const isRight = isDirectoryName(name) ? stats.isDirectory() : stats.isFile();
    const reason = isStagedName(name)
      ? !isRight && `is not a regular ${isDirectoryName(name) ? "directory" : "file"}`
      : (inplace || !(stats.isFile() || stats.isDirectory())) && "is not one of the program's working files";
    if (reason)
      throw new VmError("io", `cannot move the working files: ${path} ${reason}`, {
        hint: `move it away first: mv ${shellQuote(path)} ${shellQuote(join(dirname(hostdir), name))}`,
      });
  }
  return names;
}

/** Within a filesystem by a second name: the first one is removed with the old working files. */
async function moveFile(from: string, to: string, name: string, stats: Stats): Promise<void> {
  throwIfInterrupted();
  const [source, target] = [join(from, name), join(to, name)];
  if (stats.isFile())
    try {
      return linkSync(source, target);
    } catch (error) {
      // link(2): another filesystem, or one without hard links.
      if (!hasErrno(error, "EXDEV", "EPERM", "EMLINK", "ENOSYS", "EOPNOTSUPP")) throw error;
    }
  // `all` without extended attributes of files that are not the program's: cp(1) ignores those that it cannot keep.
  await exec(["cp", "--archive", "--reflink=auto", "--sparse=auto", "--", source, target], {
    what: `cannot copy ${source}`,
  });
  await syncTree(target);
}

async function syncTree(path: string): Promise<void> {
  const stats = lstatSync(path);
  if (stats.isFile()) return syncFile(path);
  if (!stats.isDirectory()) return;
  for (const name of listDirectory(path)) await syncTree(join(path, name));
  syncDirectory(path);
}
