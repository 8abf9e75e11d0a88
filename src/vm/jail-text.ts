import type { JailRecord } from "../store/mark-types.ts";

/** `own root, namespaces and network, uid 1900000001`; `off: JAIL=off` */
export function describeJail({ namespaces, network, noNewPrivileges, uid, reasons }: JailRecord): string {
  const parts = [
    namespaces ? `own root and namespaces${network ? ", without a network" : ""}` : undefined,
    noNewPrivileges && !namespaces ? "no new privileges" : undefined,
    uid === null ? undefined : `uid ${uid}`,
  ].filter((part) => part !== undefined);
  const state = noNewPrivileges ? parts.join(", ") : "none";
  return reasons.length === 0 ? state : `${state}; ${reasons.join("; ")}`;
}
