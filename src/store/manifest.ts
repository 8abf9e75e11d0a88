import { VmError } from "../lib/errors.ts";
import type { Consistency } from "./mark.ts";

/** One file of a snapshot that is stored compressed. */
export interface StoredFile {
  /** Its name among the working files: `disk-0.img`. */
  name: string;
  /** Its name in the snapshot: `disk-0.img.gz`. */
  file: string;
  /** Length, and what it occupied (holes do not count). */
  bytes: number;
  allocatedBytes: number;
  storedBytes: number;
  /** The size the guest sees; absent for what is no disk. */
  virtualBytes?: number;
}

/** `manifest.json` of a snapshot. */
export interface Manifest {
  version: 1;
  format: "gz";
  /** `vm 0.1.0` */
  tool: string;
  guest: string;
  /** ISO time stamp. */
  made: string;
  consistency: Consistency;
  /** The VM had not had its first run. */
  firstTime: boolean;
  files: StoredFile[];
}

const isCount = (value: unknown): boolean =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
const isName = (value: unknown): boolean => typeof value === "string" && /^[a-z][a-z0-9.-]*$/.test(value);

/** @throws 74 when the manifest is damaged, 78 when a newer version wrote it */
export function parseManifest(text: string, dir: string): Manifest {
  let manifest: Partial<Manifest>;
  try {
    manifest = JSON.parse(text) as Partial<Manifest>;
  } catch {
    throw new VmError("io", `the snapshot ${dir} is damaged: its manifest cannot be read`);
  }
  if (manifest?.version !== 1 || manifest.format !== "gz")
    throw new VmError("config", `the snapshot ${dir} was made by a newer version of this program`);
  const files = Array.isArray(manifest.files) ? manifest.files : [];
  const whole =
    files.length > 0 &&
    files.every(
      (item) =>
        isName(item.name) &&
        isName(item.file) &&
        [item.bytes, item.allocatedBytes, item.storedBytes].every(isCount),
    );
  if (!whole && files.length > 0)
    throw new VmError("io", `the snapshot ${dir} is damaged: its manifest is not whole`);
  return { ...(manifest as Manifest), files };
}
