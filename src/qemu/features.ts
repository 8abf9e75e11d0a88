/** What needs which version of qemu: for the code, `doctor`, the manual page and the README. */
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { ARCHES, type Arch } from "../machine/types.ts";

/** A version of qemu. */
export type Since = readonly [major: number, minor: number];

export interface QemuFeature {
  /** In a list: `snapshots of a running VM`. */
  name: string;
  /** First version of qemu with it. */
  since: Since;
}

/** Older versions are not tested. */
export const MINIMUM: QemuFeature = { name: "everything else", since: [7, 0] };

/** `on-cbw-error` and `cbw-timeout` of copy-before-write (qapi/block-core.json). */
export const LIVE_SNAPSHOTS: QemuFeature = { name: "snapshots of a running VM", since: [7, 1] };

/** `blockdev-set-active`; without it a node takes a child whose image qemu has released (block.c). */
export const ACTIVATION: Since = [10, 0];

/** Boot by UEFI; undefined where every version can. */
export function uefiFeature(arch: Arch): QemuFeature | undefined {
  const { uefiSince }: ArchFacts = ARCH[arch];
  return uefiSince && { name: `UEFI for ${arch} guests`, since: uefiSince };
}

/** In ascending order of versions. */
export const QEMU_FEATURES: readonly QemuFeature[] = [
  MINIMUM,
  LIVE_SNAPSHOTS,
  ...ARCHES.flatMap((arch) => uefiFeature(arch) ?? []),
].toSorted((one, other) => one.since[0] - other.since[0] || one.since[1] - other.since[1]);

/** Pure: is `version` (`7.2.22`) at least the other one? */
export function isSince(version: string, [wantedMajor, wantedMinor]: Since): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** `qemu 7.1 or later` */
export const formatSince = (since: Since): string => `qemu ${since.join(".")} or later`;
