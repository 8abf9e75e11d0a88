/**
 * UEFI variables with a boot entry, as efibootmgr(8) in a guest writes them into the file of qemu's flash.
 * Formats: UEFI specification, 3.1.3 (EFI_LOAD_OPTION), 10.3.5 (media device paths); edk2, VariableFormat.h (authenticated
 * variables) and Pi/PiFirmwareVolume.h.
 */

/** EFI_GLOBAL_VARIABLE, 8BE4DF61-93CA-11d2-AA0D-00E098032B8C, in memory order. */
const GLOBAL = Buffer.from("61dfe48bca93d211aa0d00e098032b8c", "hex");
/** EFI_VARIABLE_NON_VOLATILE, EFI_VARIABLE_BOOTSERVICE_ACCESS, EFI_VARIABLE_RUNTIME_ACCESS. */
const KEPT = 7;
const VAR_ADDED = 0x3f;
const STORE_HEADER_BYTES = 28;
const VARIABLE_HEADER_BYTES = 60;

const ucs2 = (text: string): Buffer => Buffer.from(`${text}\0`, "utf16le");

/** A device path node: its type, its subtype, and the data after the length. */
function node(type: number, subtype: number, content: Buffer): Buffer {
  const head = Buffer.from([type, subtype, 0, 0]);
  head.writeUInt16LE(4 + content.length, 2);
  return Buffer.concat([head, content]);
}

/** The first partition of a disk with an MBR. @param signature the disk's, bytes 440 to 443 */
function hardDrive(start: number, sectors: number, signature: number): Buffer {
  const content = Buffer.alloc(38);
  content.writeUInt32LE(1, 0);
  content.writeBigUInt64LE(BigInt(start), 4);
  content.writeBigUInt64LE(BigInt(sectors), 12);
  content.writeUInt32LE(signature, 20);
  content.writeUInt8(1, 36);
  content.writeUInt8(1, 37);
  return node(4, 1, content);
}

/** Boot####: a program on a partition. */
function loadOption(title: string, partition: Buffer, program: string): Buffer {
  const path = Buffer.concat([partition, node(4, 4, ucs2(program)), node(0x7f, 0xff, Buffer.alloc(0))]);
  const head = Buffer.alloc(6);
  head.writeUInt32LE(1, 0);
  head.writeUInt16LE(path.length, 4);
  return Buffer.concat([head, ucs2(title), path]);
}

function variable(name: string, data: Buffer): Buffer {
  const label = ucs2(name);
  const head = Buffer.alloc(VARIABLE_HEADER_BYTES);
  head.writeUInt16LE(0x55aa, 0);
  head.writeUInt8(VAR_ADDED, 2);
  head.writeUInt32LE(KEPT, 4);
  head.writeUInt32LE(label.length, 36);
  head.writeUInt32LE(data.length, 40);
  GLOBAL.copy(head, 44);
  const length = head.length + label.length + data.length;
  return Buffer.concat([head, label, data, Buffer.alloc((4 - (length % 4)) % 4, 0xff)]);
}

/** The boot program and its entry. */
export interface BootEntry {
  title: string;
  /** On the first partition: `\EFI\own\start.efi`. */
  program: string;
  firstSector: number;
  sectors: number;
}

/**
 * Pure: a firmware's template of variables (empty) with one boot entry, first in the order.
 * @throws if the template has variables, or is invalid
 */
export function withBootEntry(template: Buffer, entry: BootEntry): Buffer {
  if (template.toString("latin1", 40, 44) !== "_FVH") throw new Error("no firmware volume");
  const at = template.readUInt16LE(48) + STORE_HEADER_BYTES;
  if (template.readUInt32LE(at) !== 0xffffffff) throw new Error("there are variables in it");
  const partition = hardDrive(entry.firstSector, entry.sectors, 0);
  const order = Buffer.from([1, 0]);
  const stored = Buffer.concat([
    variable("Boot0001", loadOption(entry.title, partition, entry.program)),
    variable("BootOrder", order),
  ]);
  const whole = Buffer.from(template);
  stored.copy(whole, at);
  return whole;
}

/** Does a file of UEFI variables contain this text (such as an entry's title)? */
export const holdsText = (variables: Buffer, text: string): boolean =>
  variables.includes(Buffer.from(text, "utf16le"));
