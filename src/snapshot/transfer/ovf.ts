/**
 * The descriptor of an OVA: OVF 1.1 (DMTF DSP0243), with the hints of VMware's and VirtualBox's importers, and
 * what `import` needs besides (`vm:Config`).
 */
import type { Arch, DiskBus } from "../../machine/types.ts";

export interface OvfDisk {
  /** Name of the file in the archive. */
  file: string;
  fileBytes: number;
  virtualBytes: number;
  bus: DiskBus;
}

export interface OvfMachine {
  name: string;
  processors: number;
  memoryMiB: number;
  /** By UEFI. */
  efi: boolean;
  secureBoot: boolean;
  /** MAC addresses of the cards; undefined: left to the other program. */
  nics: (string | undefined)[];
  disks: OvfDisk[];
  arch: Arch;
  uuid: string | undefined;
}

const escape = (text: string): string =>
  text
    // XML 1.0 has no other control characters, and no lone surrogates.
    .toWellFormed()
    .replaceAll(/[^\t\n\r\u0020-\ufffd\u{10000}-\u{10ffff}]/gu, "?")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

const STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
const CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";

/** Numbers of CIM_ResourceAllocationSettingData.ResourceType. */
const TYPE = { processor: 3, memory: 4, scsi: 6, ethernet: 10, disk: 17, other: 20 };

/** Controllers that other programs know, by bus: none of them has virtio. */
const CONTROLLER: Readonly<Record<DiskBus, { type: number; subtype: string; name: string; most: number }>> = {
  AHCI: { type: TYPE.other, subtype: "vmware.sata.ahci", name: "SATA controller", most: 30 },
  NVME: { type: TYPE.other, subtype: "vmware.nvme.controller", name: "NVMe controller", most: 15 },
  SCSI: { type: TYPE.scsi, subtype: "lsilogic", name: "SCSI controller", most: 7 },
  USB: { type: TYPE.scsi, subtype: "lsilogic", name: "SCSI controller", most: 7 },
  VIRT: { type: TYPE.scsi, subtype: "lsilogic", name: "SCSI controller", most: 7 },
};

/** The elements of an Item in the order of the schema, which is alphabetical. */
interface Item {
  Address?: number | string;
  AddressOnParent?: number;
  AllocationUnits?: string;
  AutomaticAllocation?: boolean;
  Connection?: string;
  Description?: string;
  ElementName: string;
  HostResource?: string;
  Parent?: number;
  ResourceSubType?: string;
  ResourceType: number;
  VirtualQuantity?: number;
}

const NETWORK = "NAT";

function listItems({ processors, memoryMiB, nics, disks }: OvfMachine): Item[] {
  const items: Item[] = [
    {
      AllocationUnits: "hertz * 10^6",
      Description: "Number of virtual CPUs",
      ElementName: `${processors} virtual CPU(s)`,
      ResourceType: TYPE.processor,
      VirtualQuantity: processors,
    },
    {
      AllocationUnits: "byte * 2^20",
      Description: "Memory size",
      ElementName: `${memoryMiB} MB of memory`,
      ResourceType: TYPE.memory,
      VirtualQuantity: memoryMiB,
    },
  ];
  const open = new Map<string, { id: number; disks: number; address: number }>();
  for (const [index, { bus }] of disks.entries()) {
    const { type, subtype, name, most } = CONTROLLER[bus];
    let controller = open.get(subtype);
    if (!controller || controller.disks === most) {
      const address = controller ? controller.address + 1 : 0;
      items.push({
        Address: address,
        Description: name,
        ElementName: `${name} ${address}`,
        ResourceSubType: subtype,
        ResourceType: type,
      });
      // InstanceID counts from 1.
      controller = { id: items.length, disks: 0, address };
      open.set(subtype, controller);
    }
    items.push({
      AddressOnParent: controller.disks++,
      ElementName: `Hard disk ${index + 1}`,
      HostResource: `ovf:/disk/vmdisk${index + 1}`,
      Parent: controller.id,
      ResourceType: TYPE.disk,
    });
  }
  for (const [index, mac] of nics.entries())
    items.push({
      ...(mac !== undefined && { Address: mac }),
      AutomaticAllocation: true,
      Connection: NETWORK,
      ElementName: `Network adapter ${index + 1}`,
      ResourceSubType: "E1000",
      ResourceType: TYPE.ethernet,
    });
  return items;
}

function formatItem(item: Item, id: number): string {
  const values: Record<string, unknown> = { ...item, InstanceID: id };
  const lines = Object.keys(values)
    .toSorted()
    .map((name) => `        <rasd:${name}>${escape(String(values[name]))}</rasd:${name}>`);
  return ["      <Item>", ...lines, "      </Item>"].join("\n");
}

/** Pure: the text of the descriptor. */
export function buildOvf(machine: OvfMachine): string {
  const { disks, efi, secureBoot, nics, arch, uuid } = machine;
  const name = escape(machine.name);
  const lines = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="${CIM}/CIM_ResourceAllocationSettingData" xmlns:vssd="${CIM}/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vm="urn:x-vm:machine">`,
    "  <References>",
    ...disks.map(
      ({ file, fileBytes }, index) =>
        `    <File ovf:href="${escape(file)}" ovf:id="file${index + 1}" ovf:size="${fileBytes}"/>`,
    ),
    "  </References>",
    "  <DiskSection>",
    "    <Info>Virtual disk information</Info>",
    ...disks.map(
      ({ virtualBytes }, index) =>
        `    <Disk ovf:capacity="${virtualBytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk${index + 1}" ovf:fileRef="file${index + 1}" ovf:format="${STREAM_OPTIMIZED}"/>`,
    ),
    "  </DiskSection>",
    "  <NetworkSection>",
    "    <Info>The list of logical networks</Info>",
    ...(nics.length > 0
      ? [
          `    <Network ovf:name="${NETWORK}">`,
          "      <Description>The network of the virtual machine</Description>",
          "    </Network>",
        ]
      : []),
    "  </NetworkSection>",
    `  <VirtualSystem ovf:id="${name}">`,
    "    <Info>A virtual machine</Info>",
    `    <Name>${name}</Name>`,
    // CIM_OperatingSystem.OsType: 1 is Other.
    '    <OperatingSystemSection ovf:id="1">',
    "      <Info>The kind of installed guest operating system</Info>",
    "      <Description>Other</Description>",
    "    </OperatingSystemSection>",
    "    <VirtualHardwareSection>",
    "      <Info>Virtual hardware requirements</Info>",
    "      <System>",
    "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>",
    "        <vssd:InstanceID>0</vssd:InstanceID>",
    `        <vssd:VirtualSystemIdentifier>${name}</vssd:VirtualSystemIdentifier>`,
    "        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>",
    "      </System>",
    ...listItems(machine).map((item, index) => formatItem(item, index + 1)),
    ...(efi ? ['      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'] : []),
    ...(secureBoot
      ? [
          '      <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>',
        ]
      : []),
    ...[
      ["arch", arch],
      ...(uuid === undefined ? [] : [["uuid", uuid]]),
      ...disks.map(({ bus }, index) => [`disk${index + 1}.bus`, bus]),
    ].map(([key, value]) => `      <vm:Config ovf:required="false" vm:key="${key}" vm:value="${value}"/>`),
    "    </VirtualHardwareSection>",
    "  </VirtualSystem>",
    "</Envelope>",
  ];
  return `${lines.join("\n")}\n`;
}
