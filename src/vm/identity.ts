import { join } from "node:path";
import { refuseNewer } from "../config/guest-format.ts";
import type { Loaded } from "../config/load.ts";
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

/** What is needed of a VM that was opened. */
interface Opened extends Loaded {
  hostdir: string;
  work: Work;
}

type KnownIdentity = Identity & { uuid: string };

/** The identity that an opened VM's settings hold. */
export const identityOf = ({ settings }: Loaded): Identity => ({
  uuid: settings.UUID || undefined,
  former: settings.UUID_FORMER,
});

/**
 * The identity of the VM in a directory, from guest.env alone: the one in force, else HOSTDIR's. Where neither can be
 * read: none. Never throws.
 */
export function readIdentity(hostdir: string): Identity {
  const work = readIfPossible(() => resolveWork(hostdir)) ?? { state: "none" };
  const found = guestEnvsOf({ hostdir, work })
    .toReversed()
    .flatMap((path) => identityIn(path)?.identity ?? []);
  return found.find(({ uuid }) => uuid !== undefined) ?? NO_IDENTITY;
}

/** The UUID of the other VM that a snapshot's manifest names; undefined for one of this VM's own. */
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

/** Undefined where a file or a link cannot be read: whoever needs it says why. */
function readIfPossible<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof VmError || (error instanceof Error && "errno" in error)) return undefined;
    throw error;
  }
}

/** guest.env of HOSTDIR first: the one in force, which decides whether anything is left to do, is written last. */
function guestEnvsOf({ hostdir, work }: Pick<Opened, "hostdir" | "work">): string[] {
  const places = work.state === "present" && !work.inplace ? [hostdir, work.dir] : [hostdir];
  return places.map((place) => join(place, HOST.guestEnv));
}

/**
 * Gives an older VM its UUID, and notices where a copy of a VM is changed beside the original. Called under the VM's
 * lock. Where guest.env cannot be written, the VM stays without.
 * @param warns false for the command that renews the UUID
 * @returns the VM as its settings are now
 */
export function settleIdentity<T extends Opened>(context: Context, vm: T, warns = true): T {
  const { hostdir, work } = vm;
  if (findGuestEnv(hostdir, work) === undefined) return vm;
  const before = identityOf(vm);
  const identity = before.uuid === undefined ? makeIdentity(vm) : (before as KnownIdentity);
  if (!identity) return vm;
  if (before.uuid !== undefined && work.state === "present" && !work.inplace) copyToHost(hostdir, identity);
  const other = findOther(context, hostdir, identity.uuid);
  if (other !== undefined && warns)
    warnOnce(
      `${hostdir} and ${other} hold the same VM (UUID ${identity.uuid}): one is a copy; in the copy: ${context.prog} identity --new`,
    );
  return before.uuid === undefined ? withSettings(vm, identity) : vm;
}

/** @returns undefined where guest.env is none that can be read, or cannot be written */
function makeIdentity(vm: Opened): KnownIdentity | undefined {
  const known = guestEnvsOf(vm).map(identityIn);
  const inForce = known.at(-1) ?? (lstatOf(guestEnvsOf(vm).at(-1)!) ? undefined : known[0]);
  if (!inForce) return undefined;
  const found = known.find((item) => item?.identity.uuid !== undefined)?.identity;
  const identity: KnownIdentity = { uuid: found?.uuid ?? newUuid(), former: found?.former ?? [] };
  return readIfPossible(() => writeIdentity(vm, identity)) ? identity : undefined;
}

/** HOSTDIR's guest.env comes into force when the working files go. */
function copyToHost(hostdir: string, identity: KnownIdentity): void {
  const path = join(hostdir, HOST.guestEnv);
  const text = readIfPossible(() => readSmall(path));
  if (text?.includes(`UUID="${identity.uuid}"`) !== false) return;
  readIfPossible(() => putIdentity(path, identity));
}

/** @returns whether the file holds it now @throws a system error */
function putIdentity(path: string, identity: KnownIdentity): boolean {
  const found = identityIn(path);
  const text = found && withIdentity(found.text, identity);
  if (text === undefined) return false;
  if (text !== found!.text) replaceFile(path, text);
  return true;
}

/**
 * Writes the identity to HOSTDIR's and WORKDIR's guest.env, where these exist.
 * @returns whether the one in force holds it now @throws a system error
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
    // The line is of use in messages about bad values only.
    origins: { ...vm.origins, UUID: { kind: "file", file, line: 1 } },
  };
}

/**
 * Another directory that holds a VM of this UUID, where one was noted before. One that was moved here is noted anew.
 * @returns its HOSTDIR, or undefined
 */
function findOther({ cacheDirectory }: Context, hostdir: string, uuid: string): string | undefined {
  const noted = findRecordedPlace(cacheDirectory, uuid);
  if (noted === hostdir) return undefined;
  if (noted !== undefined && !isSameDirectory(noted, hostdir) && readIdentity(noted).uuid === uuid)
    return noted;
  notePlace(cacheDirectory, uuid, hostdir);
  return undefined;
}

/** One directory by two names: a bind mount. */
function isSameDirectory(a: string, b: string): boolean {
  const [one, other] = [readIfPossible(() => lstatOf(a)), readIfPossible(() => lstatOf(b))];
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}

/**
 * What is kept by UUID outside must not be mixed with that of a copy.
 * @param command what is refused, for the error message
 * @throws 78 in a directory whose UUID another one has
 */
export function requireSole(
  context: Context,
  hostdir: string,
  uuid: string | undefined,
  command: string,
): void {
  const other = uuid === undefined ? undefined : findOther(context, hostdir, uuid);
  if (other === undefined) return;
  throw new VmError("config", `cannot ${command}: ${hostdir} and ${other} hold the same VM (UUID ${uuid})`, {
    hint: `one is a copy; give it a UUID of its own there: ${context.prog} identity --new`,
  });
}

/**
 * Puts an identity into the guest.env of a directory that is to become the working files: the VM's own, else the
 * snapshot's, else a new one. A guest.env that cannot be read stays as it is.
 * @param own of the VM before
 * @param noted the UUID that the snapshot was made under, where that is known
 */
export function carryIdentity(dir: string, own: Identity, noted: string | undefined): void {
  const path = join(dir, HOST.guestEnv);
  const found = identityIn(path);
  if (!found) return;
  const uuid = own.uuid ?? noted ?? found.identity.uuid ?? newUuid();
  const former = own.uuid === undefined && uuid === found.identity.uuid ? found.identity.former : own.former;
  putIdentity(path, { uuid, former });
}
