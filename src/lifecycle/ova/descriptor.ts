/** What an OVF descriptor says: DMTF DSP0243 1.0 and 1.1, and 2.0, whose items have other names. */
import { VmError } from "../../lib/errors.ts";
import { isPlainName } from "../../lib/text.ts";
import { isUuid } from "../../lib/uuid.ts";
import { parseMac } from "../../machine/mac.ts";
import { MAX_NICS } from "../../machine/network.ts";
import { ARCHES, DISK_BUSES, type Arch, type DiskBus } from "../../machine/types.ts";
import { findAll, parseXml, textOf, type XmlElement } from "./xml.ts";

export interface DescribedDisk {
  /** Its file in the archive; undefined for an empty disk. */
  file: string | undefined;
  gzip: boolean;
  virtualBytes: number;
  bus: DiskBus;
  /** Its controller, if there is none like it here. */
  otherController?: string | undefined;
}

export interface OvfDescriptor {
  /** As its author named it: any text. */
  name: string;
  processors: number;
  memoryMiB: number;
  efi: boolean;
  /** MAC addresses of the cards; undefined: none is given. */
  nics: (string | undefined)[];
  /** What only this program writes. */
  own: { arch: Arch | undefined; uuid: string | undefined };
  disks: DescribedDisk[];
  /** What is not taken over, for a warning. */
  ignored: string[];
}

const refuseDescriptor = (reason: string): VmError =>
  new VmError("io", `refusing the OVF descriptor: ${reason}`);

/** Numbers of CIM_ResourceAllocationSettingData.ResourceType. */
const TYPE = { processor: "3", memory: "4", ide: "5", scsi: "6", ethernet: "10", cd: "15", disk: "17" };

const ITEMS: readonly string[] = ["Item", "StorageItem", "EthernetPortItem"];

const MOST_DISKS = 64;

/** `byte * 2^30`, and words of older programs. @returns a factor */
function parseUnits(units: string, byDefault: number): number {
  if (units === "") return byDefault;
  const [, base, power] = /^bytes?(?:\s*\*\s*(\d{1,2})\^(\d{1,2}))?$/i.exec(units) ?? [];
  if (/^bytes?/i.test(units) && (base !== undefined || !units.includes("*")))
    return Number(base ?? 1) ** Number(power ?? 1);
  const word = /^(kilo|mega|giga|tera)bytes?$/i.exec(units)?.[1]?.toLowerCase();
  if (word === undefined) throw refuseDescriptor(`unknown units: ${JSON.stringify(units)}`);
  return 1024 ** (["kilo", "mega", "giga", "tera"].indexOf(word) + 1);
}

function parseQuantity(text: string | undefined, what: string): number {
  if (!/^\d{1,15}$/.test(text ?? ""))
    throw refuseDescriptor(`${what} is ${JSON.stringify(text ?? "missing")}`);
  return Number(text);
}

/**
 * IDE and SCSI controllers of other programs are not emulated here: AHCI is what most guests know besides.
 * @param own the bus that this program recorded
 */
function busOf(
  controller: XmlElement | undefined,
  own: string | undefined,
): Pick<DescribedDisk, "bus" | "otherController"> {
  const recorded = DISK_BUSES.find((bus) => bus === own);
  if (recorded) return { bus: recorded };
  const name = (controller && textOf(controller, "ResourceSubType")) ?? "";
  const subtype = name.toLowerCase();
  const type = controller && textOf(controller, "ResourceType");
  if (subtype.includes("nvme")) return { bus: "NVME" };
  if (subtype.includes("virtio"))
    return { bus: type === TYPE.scsi || subtype.includes("scsi") ? "SCSI" : "VIRT" };
  const kind = type === TYPE.ide ? "IDE" : type === TYPE.scsi ? "SCSI" : undefined;
  const described = [kind, name].filter(Boolean).join(" ");
  return {
    bus: "AHCI",
    ...(!subtype.includes("ahci") && described !== "" && { otherController: described }),
  };
}

/** Elements `Config` with a key and a value, of VMware and of this program (`vm:Config`). */
const configOf = (system: XmlElement): ReadonlyMap<string, string> =>
  new Map(
    findAll(system, "Config").map(({ attributes }) => [
      attributes.get("key") ?? "",
      attributes.get("value") ?? "",
    ]),
  );

/** @returns undefined for an address that a card cannot have, or that an earlier one has */
function macsOf(cards: readonly XmlElement[]): (string | undefined)[] {
  const macs = cards.map((card) => parseMac(textOf(card, "Address") ?? ""));
  return macs.map((mac, index) => (macs.indexOf(mac) === index ? mac : undefined));
}

/** @throws 74 for a descriptor that is damaged, or names several machines or files outside */
export function parseOvfDescriptor(text: string): OvfDescriptor {
  const envelope = parseXml(text);
  if (envelope.name !== "Envelope") throw refuseDescriptor("it has no Envelope");
  const systems = findAll(envelope, "VirtualSystem");
  const [system] = systems;
  if (!system || systems.length > 1)
    throw refuseDescriptor(
      system ? `it describes ${systems.length} virtual machines` : "it describes no virtual machine",
    );
  const files = new Map(
    findAll(envelope, "File").map((file) => [file.attributes.get("id") ?? "", file.attributes] as const),
  );
  const described = new Map(
    findAll(envelope, "Disk").map((disk) => [disk.attributes.get("diskId") ?? "", disk.attributes] as const),
  );
  const items = ITEMS.flatMap((name) => findAll(system, name)).filter(
    ({ attributes }) => !attributes.has("bound"),
  );
  const ofType = (type: string): XmlElement[] =>
    items.filter((item) => textOf(item, "ResourceType") === type);
  const byId = new Map(
    items.map((item) => [textOf(item, "InstanceID") ?? textOf(item, "InstanceId") ?? "", item]),
  );
  const [processor] = ofType(TYPE.processor);
  const [memory] = ofType(TYPE.memory);
  const drives = ofType(TYPE.disk);
  const cards = ofType(TYPE.ethernet);
  const config = configOf(system);
  const uuid = config.get("uuid");
  if (drives.length > MOST_DISKS) throw refuseDescriptor(`it has ${drives.length} disks`);
  const memoryBytes =
    memory === undefined
      ? undefined
      : parseQuantity(textOf(memory, "VirtualQuantity"), "the memory size") *
        parseUnits(textOf(memory, "AllocationUnits") ?? "", 1 << 20);
  return {
    name: textOf(system, "Name") || system.attributes.get("id") || "",
    processors: processor
      ? parseQuantity(textOf(processor, "VirtualQuantity"), "the number of processors")
      : 1,
    memoryMiB: memoryBytes === undefined ? 1024 : Math.ceil(memoryBytes / (1 << 20)),
    efi: isEfi(system, config),
    nics: macsOf(cards).slice(0, MAX_NICS),
    own: { arch: ARCHES.find((arch) => arch === config.get("arch")), uuid: isUuid(uuid) ? uuid : undefined },
    disks: drives.map((drive, index) =>
      diskOf(drive, described, files, byId, config.get(`disk${index + 1}.bus`)),
    ),
    ignored: [
      ...(ofType(TYPE.cd).some((item) => textOf(item, "HostResource")) ? ["the CD"] : []),
      ...(cards.length > MAX_NICS ? [`network cards beyond ${MAX_NICS}`] : []),
      ...(config.get("bootOptions.efiSecureBootEnabled") === "true"
        ? ["Secure Boot (SECURE_BOOT=yes turns it on)"]
        : []),
    ],
  };
}

/** vmw:Config of VMware, vbox:Machine of VirtualBox. */
const isEfi = (system: XmlElement, config: ReadonlyMap<string, string>): boolean =>
  config.get("firmware")?.toLowerCase() === "efi" ||
  findAll(system, "Firmware").some(({ attributes }) =>
    attributes.get("type")?.toUpperCase().startsWith("EFI"),
  );

function diskOf(
  drive: XmlElement,
  described: ReadonlyMap<string, Map<string, string>>,
  files: ReadonlyMap<string, Map<string, string>>,
  items: ReadonlyMap<string, XmlElement>,
  ownBus: string | undefined,
): DescribedDisk {
  const resource = textOf(drive, "HostResource") ?? "";
  const id = /^(?:ovf:)?\/disk\/(.+)$/.exec(resource)?.[1];
  const disk = id === undefined ? undefined : described.get(id);
  if (!disk)
    throw refuseDescriptor(`a disk refers to ${JSON.stringify(resource)}, which it does not describe`);
  if (disk.has("parentRef")) throw refuseDescriptor(`the disk ${id} depends on another one`);
  const at = busOf(items.get(textOf(drive, "Parent") ?? ""), ownBus);
  const virtualBytes =
    parseQuantity(disk.get("capacity"), `the size of the disk ${id}`) *
    parseUnits(disk.get("capacityAllocationUnits") ?? "", 1);
  if (!Number.isSafeInteger(virtualBytes) || virtualBytes === 0)
    throw refuseDescriptor(`the size of the disk ${id} is not possible`);
  const reference = disk.get("fileRef");
  if (reference === undefined) return { file: undefined, gzip: false, virtualBytes, ...at };
  const file = files.get(reference);
  const href = file?.get("href");
  if (!file || !isPlainName(href))
    throw refuseDescriptor(
      `the disk ${id} is in ${JSON.stringify(href ?? reference)}, not in a file of the archive`,
    );
  if (file.has("chunkSize")) throw refuseDescriptor(`the file ${href} is in several parts`);
  const compression = file.get("compression") ?? "identity";
  if (!["identity", "gzip", ""].includes(compression))
    throw refuseDescriptor(`the file ${href} has the compression ${JSON.stringify(compression)}`);
  return { file: href, gzip: compression === "gzip", virtualBytes, ...at };
}
