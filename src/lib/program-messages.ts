/**
 * Messages of other programs that decide something here, where they give no exit status or error class for it. Programs run
 * in the C locale (exec.ts). Nothing else reads what a program says.
 */

/** Any program's words for ENOSPC, EDQUOT and EFBIG: the C library's, and Go's, which have no capitals. */
export const saysNoSpace = (text: string): boolean =>
  /No space left on device|Disk quota exceeded|File too large/i.test(text);

/** A program that writes to a pipe whose reader has ended: SIGPIPE, or EPIPE where that is ignored. */
export const saysClosedPipe = ({ signal, stderr }: { signal: string | null; stderr: string }): boolean =>
  signal === "SIGPIPE" || stderr.includes("Broken pipe");

/** EACCES and EPERM, as the C library has them. */
export const saysDenied = (text: string): boolean => /Permission denied|Operation not permitted/.test(text);

/** xorriso 1.5: the new image is larger than the free space of its filesystem. */
export const saysIsoTooLarge = (text: string): boolean => /exceeds free space/.test(text);

/** qemu-img: a qemu has the image open (block/file-posix.c, raw_check_lock_bytes). */
export const saysImageLocked = (text: string): boolean => /Failed to get .*lock/.test(text);

/** qemu-img: built without zstd, or older than `compression_type` (qemu 5.1). */
export const saysNoZstd = (text: string): boolean => /compression|zstd/i.test(text);

/** bwrap: the host's mounts changed while it read their list (its issue 650). */
export const saysMountsChanged = (text: string): boolean =>
  /in mount table|Unable to apply mount flags/.test(text);

/** QMP's screendump: the machine has no graphics card (ui/ui-qmp-cmds.c). */
export const saysNoConsole = (text: string): boolean => /no console/i.test(text);

/** QMP's device_del: the guest has been asked before (system/qdev-monitor.c; hw/pci/pcie.c). */
export const saysUnplugPending = (text: string): boolean =>
  /already in the process of unplug|power indicator blinking/.test(text);

/** qemu's log: another process has the display's port; spice-server does not say why. */
export const saysPortTaken = (text: string): boolean => /address already in use|spice server/i.test(text);

/** qemu's log: a line that is no reason to end; without a name in front if a QMP command caused it (util/error-report.c). */
export const isQemuWarning = (line: string): boolean => /(^\s*|: )warning: /.test(line);

/** qemu's log, in which swtpm writes, too: it says that its client is gone, whatever has ended qemu. */
export const isOfSwtpm = (line: string): boolean => /^\s*swtpm: /.test(line);

/** qemu's log: a signal ended it (os-posix.c), which its event log lacks if it had not greeted there. */
export const isQemuSignal = (line: string): boolean => / terminating on signal \d+/.test(line);

/** Linux's console: the line that names the reason of a panic (kernel/panic.c). */
export const isKernelPanic = (line: string): boolean => line.includes("Kernel panic");

/** restic 0.14 to 0.18; newer ones have exit statuses of their own, too. */
export const saysNoRepository = (text: string): boolean =>
  /Is there a repository at the following location|repository does not exist/i.test(text);
export const saysWrongPassword = (text: string): boolean => /wrong password or no key found/i.test(text);
/** "unable to create lock" alone may be want of room. */
export const saysRepositoryLocked = (text: string): boolean => /already locked/i.test(text);
/** Who holds the lock, and since when: `PID 7 on host by root`, `2026-11-30 17:39:04 (11.9s ago)`. */
export function parseRepositoryLock(text: string): RepositoryLock {
  const words =
    /already locked(?: exclusively)? by (PID (\d{1,9}) on (.{1,200}?) by .{1,100}?)(?: \(UID|$)/im;
  const [, holder, pid, host] = words.exec(text) ?? [];
  const since = /lock was created at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: \([\w.]+ ago\))?)/i.exec(text)?.[1];
  return { holder, pid: pid === undefined ? undefined : Number(pid), host, since };
}

export interface RepositoryLock {
  holder: string | undefined;
  pid: number | undefined;
  /** Its name (uname(2)). */
  host: string | undefined;
  since: string | undefined;
}
/** restic check has found damage; not that it could not read, or lock. */
export const saysRepositoryDamaged = (text: string): boolean =>
  /repository contains errors|repository is damaged|LoadIndex returned errors/i.test(text);

/** qemu-ga: its configuration blocks the command; older ones give this no error class of its own. */
export const saysDisabled = (text: string): boolean => /disabled/.test(text);
/** qemu-ga: guest-exec of a program that is not there (glib's GSpawn error). */
export const saysNoSuchFile = (text: string): boolean => /no such file/i.test(text);

/** restic, of a pack: it tries again for a quarter of an hour, whether that can help or not. */
export const saysDataLost = (line: string): boolean =>
  /no such file or directory|does not exist|not found|ciphertext verification failed|wrong data returned|invalid data/i.test(
    line,
  );
