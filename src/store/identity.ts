import { readAssignments, type Assignment } from "../config/literal.ts";
import { isUuid } from "../lib/uuid.ts";
import { withChanges } from "./guest-env.ts";

/** Identity of a VM: kept when its directory is moved or renamed, replaced in a copy used beside the original. */
export interface Identity {
  /** Absent in older VMs, until their first change. */
  uuid: string | undefined;
  /** Earlier UUIDs, oldest first. */
  former: readonly string[];
}

export const NO_IDENTITY: Identity = { uuid: undefined, former: [] };

/**
 * Pure: does a snapshot belong to another VM?
 * @param own the VM's current and former UUIDs; empty if it has none yet
 * @param vm the UUID in the snapshot's manifest; absent in those of earlier versions
 */
export const isForeign = (own: readonly string[], vm: string | undefined): boolean =>
  vm !== undefined && own.length > 0 && !own.includes(vm);

function parse(text: string): Assignment[] | undefined {
  const read = readAssignments(text, () => "");
  return read.kind === "values" && read.assignments.length > 0 ? read.assignments : undefined;
}

/**
 * Pure: reads the identity from the text of a guest.env.
 * @returns undefined if the text is empty or not literal, or these settings have other values
 */
export function parseIdentity(text: string): Identity | undefined {
  const assignments = parse(text);
  if (!assignments) return undefined;
  const valueOf = (name: string): string[] => {
    const value = assignments.findLast((item) => item.name === name)?.value ?? [];
    return [value].flat().filter((item) => item !== "");
  };
  const [uuid, ...others] = valueOf("UUID");
  const former = valueOf("UUID_FORMER");
  if (others.length > 0 || ![...(uuid === undefined ? [] : [uuid]), ...former].every(isUuid))
    return undefined;
  return { uuid, former };
}

const isSameIdentity = (a: Identity, b: Identity): boolean =>
  a.uuid === b.uuid && JSON.stringify(a.former) === JSON.stringify(b.former);

/**
 * Pure: sets the identity in the text of a guest.env; returns the same text if it is already set.
 * @returns undefined if the text cannot be read, or the result would not be read back the same
 */
export function withIdentity(text: string, identity: Identity & { uuid: string }): string | undefined {
  const before = parseIdentity(text);
  if (!before) return undefined;
  const former =
    identity.former.length === 0 && before.former.length === 0 ? {} : { UUID_FORMER: [...identity.former] };
  return isSameIdentity(before, identity) ? text : withChanges(text, { UUID: identity.uuid, ...former });
}
