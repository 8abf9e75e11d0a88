import { readAssignments, type Assignment } from "../config/literal.ts";
import { isUuid } from "../lib/uuid.ts";
import { withAssignment } from "./guest-env.ts";

/** Which VM a directory holds: kept when it is moved or renamed, renewed by a copy that is used beside the original. */
export interface Identity {
  /** Absent in older VMs, until their first change. */
  uuid: string | undefined;
  /** UUIDs that it had earlier, oldest first. */
  former: readonly string[];
}

export const NO_IDENTITY: Identity = { uuid: undefined, former: [] };

const NAMES: readonly string[] = ["UUID", "UUID_FORMER"];

function parse(text: string): Assignment[] | undefined {
  const read = readAssignments(text, () => "");
  return read.kind === "values" && read.assignments.length > 0 ? read.assignments : undefined;
}

/**
 * Pure: the identity that the text of a guest.env holds.
 * @returns undefined when the text is empty, not literal, or holds something else in these settings
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
 * Pure: the text of a guest.env with this identity; the same text where it holds that already.
 * @returns undefined when the text is none that can be read, or would not be read back so
 */
export function withIdentity(text: string, identity: Identity & { uuid: string }): string | undefined {
  const before = parseIdentity(text);
  if (!before) return undefined;
  if (isSameIdentity(before, identity)) return text;
  let changed = before.uuid === identity.uuid ? text : withAssignment(text, "UUID", identity.uuid);
  if (JSON.stringify(before.former) !== JSON.stringify(identity.former))
    changed = withAssignment(changed, "UUID_FORMER", [...identity.former]);
  // A last line that ends in `\` would swallow what is appended.
  const after = parseIdentity(changed);
  return after && isSameIdentity(after, identity) && others(changed) === others(text) ? changed : undefined;
}

/** All further settings, for a comparison. */
const others = (text: string): string =>
  JSON.stringify(
    parse(text)
      ?.filter(({ name }) => !NAMES.includes(name))
      .map(({ name, value }) => [name, value]),
  );
