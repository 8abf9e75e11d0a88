/** The user's own part of a rescue ISO: kernel arguments, and files beside the script that starts jobs. */
import {
  chmodSync,
  closeSync,
  copyFileSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
} from "node:fs";
import { join, posix } from "node:path";
import { fileKindOf, openForReading } from "../../lib/read-file.ts";
import { VmError } from "../../lib/errors.ts";
import { formatSize } from "../../lib/size.ts";
import { plain } from "../../lib/text.ts";
import { throwIfInterrupted } from "../../process/signals.ts";

/** Characters that mean nothing to isolinux, to grub's shell, and in `/proc/cmdline`. */
const KERNEL_ARGUMENT = /^[A-Za-z0-9_.,:=/@%+-]+$/;
/** isolinux takes 2047 characters (syslinux.txt, `append`), with those of the ISO. */
const MAX_ARGUMENTS_LENGTH = 1000;
/** By it the ISO finds its own scripts. */
const RESERVED = /^autorun(=|$)/;

/** @returns the arguments of `--append`, or what is allowed instead */
export function parseKernelArguments(text: string): { words: string[] } | { given: string; allowed: string } {
  const words = text.split(" ").filter(Boolean);
  const reserved = words.find((word) => RESERVED.test(word));
  if (reserved !== undefined)
    return { given: reserved, allowed: "other arguments: that one starts the jobs" };
  const wrong = words.find((word) => !KERNEL_ARGUMENT.test(word));
  if (wrong !== undefined)
    return { given: wrong, allowed: "kernel arguments of letters, digits and _ . , : = / @ % + -" };
  if (words.length === 0) return { given: text, allowed: "kernel arguments with spaces between" };
  return text.length > MAX_ARGUMENTS_LENGTH
    ? { given: text, allowed: `at most ${MAX_ARGUMENTS_LENGTH} characters` }
    : { words };
}

/** [compat] What ALT Rescue runs. */
export const AUTORUN = "autorun";
/** The program's own script, beside one of the user's. */
export const RUNNER_BESIDE = "vm-runner";

const MAX_BYTES = 2 ** 30;
const MAX_ENTRIES = 10_000;

/**
 * Copies a directory of the user's to a private one, with execute permissions. Symlinks that stay within it are kept.
 * @param stage must not exist
 * @throws 74 for anything else than files, directories and such links, and for too much data
 */
export function stageRecovery(directory: string, stage: string): void {
  let bytes = 0;
  let entries = 0;
  const refuse = (path: string, why: string): VmError =>
    new VmError("io", `cannot put ${plain(path)} on the ISO: ${why}`, {
      hint: `use a directory with files for the rescue only; it was: ${plain(directory)}`,
    });
  const copy = (below: string): void => {
    throwIfInterrupted();
    mkdirSync(join(stage, below));
    chmodSync(join(stage, below), 0o755);
    for (const name of readdirSync(join(directory, below))) {
      const relative = posix.join(below, name);
      const [from, to] = [join(directory, relative), join(stage, relative)];
      const stats = lstatSync(from);
      if (/\p{Cc}/u.test(name)) throw refuse(from, "its name has a control character");
      if (++entries > MAX_ENTRIES) throw refuse(directory, `it has more than ${MAX_ENTRIES} files`);
      if (stats.isDirectory()) copy(relative);
      else if (stats.isSymbolicLink()) {
        const target = readlinkSync(from);
        if (target.startsWith("/") || posix.join(below, target).split("/")[0] === "..")
          throw refuse(from, `it is a symlink to ${plain(target)}, outside the directory`);
        symlinkSync(target, to);
      } else if (stats.isFile()) {
        bytes += stats.size;
        if (bytes > MAX_BYTES) throw refuse(directory, `it has more than ${formatSize(MAX_BYTES)}`);
        copyRegular(from, to);
      } else throw refuse(from, `it is ${fileKindOf(stats)}`);
    }
  };
  copy("");
}

/** A file may have been replaced since it was checked. */
function copyRegular(from: string, to: string): void {
  const fd = openForReading(from);
  try {
    copyFileSync(`/proc/self/fd/${fd}`, to);
    chmodSync(to, (fstatSync(fd).mode & 0o111) === 0 ? 0o644 : 0o755);
  } finally {
    closeSync(fd);
  }
}
