import { expect, test } from "bun:test";
import {
  isKernelPanic,
  isQemuWarning,
  saysDenied,
  saysDisabled,
  saysImageLocked,
  saysIsoTooLarge,
  saysMountsChanged,
  saysNoConsole,
  saysNoRepository,
  saysNoSpace,
  saysNoSuchFile,
  saysNoZstd,
  saysPortTaken,
  saysRepositoryLocked,
  saysWrongPassword,
} from "../../src/lib/program-messages.ts";

/** A message of each program that its function matches, and no other function does. */
const MESSAGES = [
  [saysNoSpace, "dd: error writing 'x': No space left on device"],
  [saysNoSpace, "Fatal: unable to save snapshot: write /r/x: no space left on device"],
  [saysNoSpace, "cp: x: Disk quota exceeded"],
  [saysDenied, "cannot copy the disks: Permission denied"],
  [
    saysMountsChanged,
    'bwrap: Can\'t bind mount /oldroot/a on /newroot/a: Unable to find "/newroot/a" in mount table',
  ],
  [
    saysMountsChanged,
    'bwrap: Can\'t bind mount /oldroot/ on /newroot/: Unable to apply mount flags: remount "/newroot/a": Invalid argument',
  ],
  [saysIsoTooLarge, "xorriso : FAILURE : Image size 1500s exceeds free space on media 3s"],
  [
    saysImageLocked,
    "qemu-img: Could not open 'x': Failed to get shared \"write\" lock\nIs another process using the image [x]?",
  ],
  [saysNoZstd, "qemu-img: x: Invalid parameter 'compression_type'"],
  [saysNoZstd, "qemu-img: x: Invalid parameter 'zstd'"],
  [saysNoConsole, "There is no console to take a screendump from"],
  [saysPortTaken, "Failed to find an available port: Address already in use"],
  [saysPortTaken, "qemu-system-x86_64: failed to initialize spice server"],
  [isQemuWarning, "  warning: The target block device doesn't provide information about the block size"],
  [isQemuWarning, "qemu-system-x86_64: warning: TCG doesn't support requested feature"],
  [isKernelPanic, "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs"],
  [saysNoRepository, "Is there a repository at the following location?\n/r"],
  [saysNoRepository, "Fatal: repository does not exist: unable to open config file"],
  [saysWrongPassword, "Fatal: wrong password or no key found"],
  [saysRepositoryLocked, "unable to create lock in backend: repository is already locked by PID 7"],
  [saysDisabled, "Command guest-exec has been disabled"],
  [saysNoSuchFile, 'Failed to execute child process "/x" (No such file or directory)'],
] as const;

test.each(MESSAGES.map(([says, text]) => [says.name, text, says] as const))("%s: %j", (_name, text, says) => {
  const all = new Set(MESSAGES.map(([one]) => one));
  expect([...all].filter((one) => one(text))).toEqual([says]);
});

test.each(["gzip: stdin: not in gzip format", ""])("%j matches none", (text) => {
  expect(MESSAGES.filter(([says]) => says(text))).toEqual([]);
});
