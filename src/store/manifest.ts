import { VmError } from "../lib/errors.ts";
import { isUuid } from "../lib/uuid.ts";
import { type Machine, SNAPSHOT_FORMATS, type SnapshotFormat } from "../machine/types.ts";
import { STATE } from "./layout.ts";
import { type Consistency, parseConsistency, type RunRecord } from "./mark-types.ts";

/** One of the VM's files in a snapshot. */
export interface StoredFile {
  /** Name of the working file: `disk-0.img`. */
  name: string;
  /** Name in the snapshot: `disk-0.img.gz`, `disk-0.qcow2`. */
  file: string;
  /** Length, and allocated bytes (without holes). */
  bytes: number;
  allocatedBytes: number;
  storedBytes: number;
  /** Virtual size of a disk; absent for other files. */
  virtualBytes?: number;
}

/** The running machine whose RAM a snapshot includes: what another one needs to resume it. */
export interface SavedMachine {
  /** Version of its qemu. */
  qemu: string;
  accel: Machine["accel"];
  /** Checksum of the host's processor. */
  processor: string;
  /** The CD in its drive, absolute; is it the first in boot order? */
  cd: { path: string | null; first: boolean };
  /** Its start, as in the mark: with its settings and options. */
  run: RunRecord;
}

/** `manifest.json` of a snapshot. */
export interface Manifest {
  /**
   * 2: with the state of a TPM, which earlier versions would drop from a restored VM. 3: with RAM, which they would take for
   * a damaged disk.
   */
  version: 1 | 2 | 3;
  format: SnapshotFormat;
  /**
   * Identifies this state of the disks, 16 hexadecimal digits: dirty bitmaps in the working disks (qcow2) and copies in
   * a repository refer to it. Absent in older gz snapshots.
   */
  id?: string;
  /** The snapshot that its disks are incremental on (qcow2); absent if it is full. */
  parent?: string;
  /** The parent's `id`, and the checksum of its content at that time (`contentSum`). Absent in older ones. */
  parentId?: string;
  parentSum?: string;
  /** Checksums of its content before data of removed parents was merged into it: children may refer to these. */
  formerSums?: string[];
  /** `vm 0.1.0` */
  tool: string;
  guest: string;
  /** The VM's UUID; absent in older ones. */
  vm?: string;
  /** ISO time stamp. */
  made: string;
  consistency: Consistency;
  /** The VM had not been run yet. */
  firstTime: boolean;
  files: StoredFile[];
  /** With RAM. */
  machine?: SavedMachine;
}

/** Does a snapshot include the RAM of the guest, which was running? */
export const hasRam = (manifest: Pick<Manifest, "files"> | undefined): boolean =>
  manifest?.files.some(({ name }) => name === STATE.ram) ?? false;

/** The known formats of manifest.json. */
const MANIFEST_VERSIONS: readonly number[] = [1, 2, 3];

const isCount = (value: unknown): boolean =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
const isName = (value: unknown): boolean => typeof value === "string" && /^[a-z][a-z0-9.-]*$/.test(value);

export const isSnapshotId = (value: unknown): value is string =>
  typeof value === "string" && /^[0-9a-f]{16}$/.test(value);

const isSum = (value: unknown): boolean => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);

function isStoredFile(value: unknown): value is StoredFile {
  if (typeof value !== "object" || value === null) return false;
  const { name, file, bytes, allocatedBytes, storedBytes, virtualBytes = 0 } = value as Partial<StoredFile>;
  return isName(name) && isName(file) && [bytes, allocatedBytes, storedBytes, virtualBytes].every(isCount);
}

/** Of the rest, the mark's schema takes what it knows (mark-schema.ts). */
function isSavedMachine(value: unknown): value is SavedMachine {
  const { qemu, accel, processor, cd, run } = (value ?? {}) as Record<string, any>;
  return (
    typeof qemu === "string" &&
    /^\d[\d.]{0,20}$/.test(qemu) &&
    (accel === "kvm" || accel === "tcg") &&
    typeof processor === "string" &&
    /^[0-9a-f]{1,64}$/.test(processor) &&
    (cd?.path === null || typeof cd?.path === "string") &&
    typeof cd.first === "boolean" &&
    typeof run === "object" &&
    run !== null
  );
}

const describeFormat = ({
  version,
  format,
  tool,
}: {
  version?: unknown;
  format?: unknown;
  tool?: unknown;
}): string =>
  `format ${JSON.stringify(version)}${typeof format === "string" ? ` ${JSON.stringify(format)}` : ""}${
    typeof tool === "string" ? `, written by ${JSON.stringify(tool)}` : ""
  }`;

/** @throws 74 when the manifest is damaged, 78 when a newer version wrote it */
export function parseManifest(text: string, dir: string): Manifest {
  const brief = "its manifest is incomplete";
  const damaged = new VmError("io", `the snapshot ${dir} is damaged: ${brief}`, { brief });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged;
  }
  if (typeof value !== "object" || value === null || !("version" in value)) throw damaged;
  const manifest = value as Partial<Manifest>;
  if (typeof manifest.version !== "number") throw damaged;
  const { format = "" } = manifest;
  if (
    !MANIFEST_VERSIONS.includes(manifest.version) ||
    !(SNAPSHOT_FORMATS as readonly string[]).includes(format)
  )
    throw new VmError(
      "config",
      `the snapshot ${dir} was made by a newer version of this program (${describeFormat(manifest)})`,
      { hint: "use that version", reason: "newer" },
    );
  const { files, id, parent, parentId, parentSum, formerSums = [], vm } = manifest;
  const consistency = parseConsistency(manifest.consistency);
  if (!Array.isArray(files) || !files.every(isStoredFile) || !consistency) throw damaged;
  if (parent !== undefined && typeof parent !== "string") throw damaged;
  if (![id, parentId].every((item) => item === undefined || isSnapshotId(item))) throw damaged;
  if (parentSum !== undefined && !isSum(parentSum)) throw damaged;
  if (!Array.isArray(formerSums) || !formerSums.every(isSum)) throw damaged;
  if (vm !== undefined && !isUuid(vm)) throw damaged;
  if (hasRam({ files }) && !isSavedMachine(manifest.machine)) throw damaged;
  return { ...(manifest as Manifest), consistency };
}
