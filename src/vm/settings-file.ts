import { join } from "node:path";
import { log } from "../lib/log.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { readValues } from "../store/guest-env.ts";
import { HOST } from "../store/layout.ts";
import { findGuestEnv, type Work } from "../store/workdir.ts";

/**
 * HOSTDIR's guest.env, if it was changed after WORKDIR's, which is read instead, and to other settings: a user has edited
 * the wrong one. Never throws.
 */
export function findUnreadSettings(hostdir: string, work: Work): string | undefined {
  const unread = join(hostdir, HOST.guestEnv);
  try {
    const path = findGuestEnv(hostdir, work);
    if (path === undefined || work.state !== "present" || work.inplace || path === unread) return undefined;
    const [here, there] = [lstatOf(unread), lstatOf(path)];
    if (!here || !there || here.mtimeMs <= there.mtimeMs) return undefined;
    const [one, other] = [unread, path].map((file) => readValues(readSmall(file) ?? ""));
    return one !== undefined && !isSameValues(one, other ?? {}) ? unread : undefined;
  } catch {
    // Not readable: it has no effect either way.
    return undefined;
  }
}

const isSameValues = <T extends object>(one: T, other: T): boolean =>
  [...new Set([...Object.keys(one), ...Object.keys(other)])].every(
    (name) => JSON.stringify(one[name as keyof T]) === JSON.stringify(other[name as keyof T]),
  );

/** Warns of changes in HOSTDIR's guest.env that have no effect. */
export function warnOfUnreadSettings({ hostdir, work }: { hostdir: string; work: Work }): void {
  const unread = findUnreadSettings(hostdir, work);
  if (unread !== undefined)
    log.warn(
      `changes in ${unread} have no effect: while the VM has working files, ${findGuestEnv(hostdir, work)} is read`,
    );
}
