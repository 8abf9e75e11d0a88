import { utimesSync } from "node:fs";
import { join } from "node:path";
import { refuseNewer } from "../config/guest-format.ts";
import type { Loaded } from "../config/load.ts";
import { programLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { newUuid } from "../lib/uuid.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { replaceFile } from "../store/files.ts";
import { isForeign, NO_IDENTITY, parseIdentity, withIdentity, type Identity } from "../store/identity.ts";
import { HOST } from "../store/layout.ts";
import { notePlace, findRecordedPlace } from "../store/places.ts";
import { findGuestEnv, resolveWork, type Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";

/** The part of an opened VM that this module needs. */
interface Opened extends Loaded {
  hostdir: string;
  work: Work;
}

type KnownIdentity = Identity & { uuid: string };

/** The identity from an opened VM's settings. */
export const identityOf = ({ settings }: Loaded): Identity => ({
  uuid: settings.UUID || undefined,
  former: settings.UUID_FORMER,
});

/**
 * The identity of the VM in a directory, from its guest.env: the active one, else HOSTDIR's. None if neither can be read.
 * Never throws.
 */
export function readIdentity(hostdir: string): Identity {
  const work = readIfPossible(() => resolveWork(hostdir)) ?? { state: "none" };
  const found = guestEnvsOf({ hostdir, work })
    .toReversed()
    .flatMap((path) => identityIn(path)?.identity ?? []);
  return found.find(({ uuid }) => uuid !== undefined) ?? NO_IDENTITY;
}

/** The UUID in a snapshot's manifest if it is another VM's, else undefined. */
export function foreignUuid({ uuid, former }: Identity, vm: string | undefined): string | undefined {
  const own = uuid === undefined ? [] : [uuid, ...former];
  return isForeign(own, vm) ? vm : undefined;
}

function identityIn(path: string): { text: string; identity: Identity } | undefined {
  return readIfPossible(() => {
    const text = readSmall(path);
    if (text === undefined) return undefined;
    refuseNewer(text, path);
    const identity = parseIdentity(text);
    return identity && { text, identity };
  });
}

/** Undefined if a file or symlink cannot be read: commands that need it report why. */
function readIfPossible<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof VmError || (error instanceof Error && "errno" in error)) return undefined;
    throw error;
  }
}

/** HOSTDIR's guest.env first. The active one is written last, as it shows whether all is done. */
function guestEnvsOf({ hostdir, work }: Pick<Opened, "hostdir" | "work">): string[] {
  const places = work.state === "present" && !work.inplace ? [hostdir, work.dir] : [hostdir];
  return places.map((place) => join(place, HOST.guestEnv));
}

/**
 * Gives a VM of an older version a UUID, and warns if another directory has the same one. Called under the VM's lock. If
 * guest.env cannot be written, the VM has no UUID.
 * @param warns false for the command that renews the UUID
 * @returns the VM with its present settings
 */
export function ensureIdentity<T extends Opened>(context: Context, vm: T, warns = true): T {
  const { hostdir, work } = vm;
  if (findGuestEnv(hostdir, work) === undefined) return vm;
  const before = identityOf(vm);
  const identity = before.uuid === undefined ? makeIdentity(vm) : (before as KnownIdentity);
  if (!identity) return vm;
  if (before.uuid !== undefined && work.state === "present" && !work.inplace) copyToHost(hostdir, identity);
  const other = findOther(context, hostdir, identity.uuid);
  if (other !== undefined && warns) warnOnce(describeCopy(hostdir, other, identity.uuid));
  else if (other === undefined) notePlace(context.cacheDirectory, identity.uuid, hostdir);
  return before.uuid === undefined ? withSettings(vm, identity) : vm;
}

export const describeCopy = (hostdir: string, other: string, uuid: string): string =>
  `${hostdir} and ${other} contain the same VM (UUID ${uuid}): one is a copy, with the same MAC address; in the copy, run: ${programLine("identity", "--new")}`;

/** @returns undefined if guest.env cannot be read or written */
function makeIdentity(vm: Opened): KnownIdentity | undefined {
  const known = guestEnvsOf(vm).map(identityIn);
  const inForce = known.at(-1) ?? (lstatOf(guestEnvsOf(vm).at(-1)!) ? undefined : known[0]);
  if (!inForce) return undefined;
  const found = known.find((item) => item?.identity.uuid !== undefined)?.identity;
  const identity: KnownIdentity = { uuid: found?.uuid ?? newUuid(), former: found?.former ?? [] };
  return readIfPossible(() => writeIdentity(vm, identity)) ? identity : undefined;
}

/** HOSTDIR's guest.env is used when the working files are removed. */
function copyToHost(hostdir: string, identity: KnownIdentity): void {
  const path = join(hostdir, HOST.guestEnv);
  const text = readIfPossible(() => readSmall(path));
  if (text?.includes(`UUID="${identity.uuid}"`) !== false) return;
  readIfPossible(() => {
    const { atime, mtime } = lstatOf(path)!;
    putIdentity(path, identity);
    // The time of the user's last change (settings-file.ts).
    utimesSync(path, atime, mtime);
  });
}

/** @returns whether the file contains it now @throws a system error */
function putIdentity(path: string, identity: KnownIdentity): boolean {
  const found = identityIn(path);
  const text = found && withIdentity(found.text, identity);
  if (text === undefined) return false;
  if (text !== found!.text) replaceFile(path, text);
  return true;
}

/**
 * Writes the identity to the existing guest.env of HOSTDIR and WORKDIR.
 * @returns whether the active one contains it now @throws a system error
 */
export function writeIdentity(vm: Pick<Opened, "hostdir" | "work">, identity: KnownIdentity): boolean {
  let done = false;
  for (const path of guestEnvsOf(vm)) if (lstatOf(path)) done = putIdentity(path, identity);
  return done;
}

function withSettings<T extends Opened>(vm: T, { uuid, former }: KnownIdentity): T {
  const file = findGuestEnv(vm.hostdir, vm.work)!;
  return {
    ...vm,
    settings: { ...vm.settings, UUID: uuid, UUID_FORMER: [...former] },
    raw: { ...vm.raw, UUID: uuid, UUID_FORMER: [...former] },
    // The line is only used in messages about invalid values.
    origins: { ...vm.origins, UUID: { kind: "file", file, line: 1 } },
  };
}

/** Finds another directory with a VM of this UUID, if one is recorded. Changes nothing. @returns its HOSTDIR, or undefined */
export function findOther({ cacheDirectory }: Context, hostdir: string, uuid: string): string | undefined {
  const recorded = findRecordedPlace(cacheDirectory, uuid);
  if (recorded === undefined || recorded === hostdir || isSameDirectory(recorded, hostdir)) return undefined;
  return readIdentity(recorded).uuid === uuid ? recorded : undefined;
}

/** The same directory by another name, as with a bind mount. */
function isSameDirectory(a: string, b: string): boolean {
  const [one, other] = [readIfPossible(() => lstatOf(a)), readIfPossible(() => lstatOf(b))];
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}

/**
 * Refuses commands on external data that is identified by UUID, as a copy of the VM has the same one.
 * @param command what is refused, for the error message
 * @throws 78 if another directory has the same UUID
 */
export function requireUniqueUuid(
  context: Context,
  hostdir: string,
  uuid: string | undefined,
  command: string,
): void {
  const other = uuid === undefined ? undefined : findOther(context, hostdir, uuid);
  if (other === undefined) return;
  throw new VmError(
    "config",
    `cannot ${command}: ${hostdir} and ${other} contain the same VM (UUID ${uuid})`,
    {
      hint: `one is a copy; give it a new UUID, in its directory: ${programLine("identity", "--new")}`,
    },
  );
}

/**
 * Writes the identity into the guest.env of staged working files: the VM's own, else the snapshot's, else a new one. An
 * unreadable guest.env is left as it is.
 * @param own of the VM before
 * @param recorded the UUID in the snapshot's manifest
 */
export function carryIdentity(dir: string, own: Identity, recorded: string | undefined): void {
  const path = join(dir, HOST.guestEnv);
  const found = identityIn(path);
  if (!found) return;
  const uuid = own.uuid ?? recorded ?? found.identity.uuid ?? newUuid();
  const former = own.uuid === undefined && uuid === found.identity.uuid ? found.identity.former : own.former;
  putIdentity(path, { uuid, former });
}
