/** OVA, for and from other programs. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { parseOvfDescriptor } from "../../src/lifecycle/ova/descriptor.ts";
import { parseXml } from "../../src/lifecycle/ova/xml.ts";
import { buildTarHeader } from "../../src/lib/tar.ts";
import { sha256 } from "../../src/lib/crypto.ts";
import { buildOvf } from "../../src/snapshot/transfer/ovf.ts";
import { ovf1, ovf2, tarOf, validateOvf, vmdkOf, writeOva } from "../fixtures/ova.ts";
import { WORK } from "../../src/store/layout.ts";
import { lockVm } from "../../src/store/lock.ts";
import { TEMPORARY, workPrefix } from "../../src/store/working-files.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { buildChain, DISK_BYTES, qemuImg, seen } from "./snapshots.ts";

const source = (): Promise<Sandbox> => buildChain("ova", "", "R & D");

let box: Sandbox;
beforeAll(async () => {
  box = await source();
});
afterAll(() => box[Symbol.dispose]());

const place = (name: string): string => join(box.top, name);

describe("export --format=ova", () => {
  test.each([
    ["S0", [1]],
    ["S2", [1, 2, 3]],
    [undefined, [1, 2, 3, 4]],
  ])(
    "of %p is an OVA that tar, sha256sum and qemu-img read, and that import makes the same VM of",
    async (name, content) => {
      const file = place(`${name}.ova`);
      await box.ok("export", ...(name ? [name] : []), "--format=ova", "-o", file);
      const dir = place(`unpacked-${name}`);
      mkdirSync(dir);
      const tar = (...words: string[]): string =>
        Bun.spawnSync(["tar", ...words], { cwd: dir }).stdout.toString();
      expect(tar("-tf", file).trim().split("\n")).toEqual(["R___D.ovf", "R___D.mf", "R___D-disk1.vmdk"]);
      tar("-xf", file);
      for (const line of readFileSync(join(dir, "R___D.mf"), "utf8").trim().split("\n")) {
        const [, member = "", sum] = /^SHA256\((.+)\)= ([0-9a-f]{64})$/.exec(line)!;
        expect(sha256(readFileSync(join(dir, member)))).toBe(sum!);
      }
      const info = JSON.parse(
        Bun.spawnSync(["qemu-img", "info", "--output=json", join(dir, "R___D-disk1.vmdk")]).stdout.toString(),
      );
      expect(info).toMatchObject({ format: "vmdk", "virtual-size": DISK_BYTES });
      expect(info["format-specific"].data["create-type"]).toBe("streamOptimized");
      await box.ok("import", file, `../from-${name}`);
      expect(seen(box, join(place(`from-${name}`), ".work/disk-0.img"))).toEqual(content);
      expect(await box.json("-d", place(`from-${name}`), "status")).toMatchObject({
        name: "R & D",
        memoryMiB: 64,
        cores: 1,
      });
      expect(readdirSync(box.host).toSorted()).toEqual([".work", "backups", "guest.env"]);
    },
  );

  test("keeps buses, cards and MAC addresses, unless the original is on this host or --new-identity is given", async () => {
    using other = new Sandbox(
      "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=1M NVME=1M)\nNETWORKS=(user user,mac=02:00:00:00:00:07)\n",
    );
    await other.ok("create", "G");
    const at = (name: string): string => join(other.top, name);
    const { stderr } = await other.ok("export", "--format=ova", "-o", at("x.ova"));
    // The default shared folders are nothing that is lost.
    expect(stderr).not.toContain("not in the OVA");
    const cards = async (...words: string[]): Promise<string[]> =>
      (await other.json(...words, "status")).nics.map(({ mac }: { mac: string }) => mac);
    const original = await cards();
    const { stderr: said } = await other.ok("import", at("x.ova"), at("here"));
    expect(said).toContain("new MAC addresses");
    expect(await cards("-d", at("here"))).not.toEqual(original);
    other.environment.XDG_CACHE_HOME = at("cache");
    mkdirSync(at("cache"));
    await other.ok("import", at("x.ova"), at("there"));
    expect(await cards("-d", at("there"))).toEqual(original);
    expect(
      (await other.json("-d", at("there"), "status")).disks.map(({ bus }: { bus: string }) => bus),
    ).toEqual(["VIRT", "NVME"]);
    await other.ok("import", "--new-identity", at("x.ova"), at("renewed"));
    expect(await cards("-d", at("renewed"))).not.toEqual(original);
  });

  test("names what the user has configured and no OVA holds", async () => {
    using other = new Sandbox("MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n");
    await other.ok("-s", `x:${other.top}`, "create", "G");
    await other.ends(0, ["export", "--format=ova", "-o", "../x.ova"], "not in the OVA: shared folders (x)");
  });

  test("of a snapshot does not wait for the VM's lock, and leaves no temporary files", async () => {
    using _lock = await lockVm(box.host, "run");
    const left = join(box.tmp, `${workPrefix(box.host)}deadbeef${TEMPORARY}`);
    mkdirSync(left, { mode: 0o700 });
    symlinkSync(box.host, join(left, WORK.hostLink));
    await box.ok("export", "S1", "--format=ova", "-o", "../unlocked.ova");
    await box.ends(75, "export --format=ova -o ../locked.ova", "another process");
    expect(readdirSync(box.tmp).filter((name) => name.includes("temporary"))).toEqual([]);
  });

  test("its descriptor is well-formed whatever the name, with the elements of an item in alphabetical order", () => {
    const disks = Array.from({ length: 9 }, (_, at) => ({
      file: `d${at}.vmdk`,
      fileBytes: 7,
      virtualBytes: 1 << 20,
      bus: (["VIRT", "SCSI", "USB"] as const)[at % 3]!,
    }));
    const name = '<&">\u0007\ud800 ünïcode';
    const text = buildOvf({
      name,
      processors: 3,
      memoryMiB: 99,
      efi: true,
      secureBoot: true,
      nics: ["02:00:00:00:00:01", undefined],
      disks,
      arch: "aarch64",
      uuid: "123e4567-e89b-42d3-a456-426614174000",
    });
    const found = parseOvfDescriptor(text);
    expect(found).toMatchObject({
      name: '<&">?\ufffd ünïcode',
      processors: 3,
      memoryMiB: 99,
      efi: true,
      nics: ["02:00:00:00:00:01", undefined],
      own: { arch: "aarch64", uuid: "123e4567-e89b-42d3-a456-426614174000" },
    });
    expect(found.disks.map(({ bus }) => bus)).toEqual(disks.map(({ bus }) => bus));
    expect(found.disks.map(({ file }) => file)).toEqual(disks.map(({ file }) => file));
    for (const item of text.match(/<Item>[^]*?<\/Item>/g)!) {
      const names = [...item.matchAll(/<rasd:(\w+)>/g)].map(([, word]) => word!);
      expect(names).toEqual(names.toSorted());
    }
    // Seven disks at most on one SCSI controller.
    expect(text.match(/SCSI controller \d/g)).toEqual(["SCSI controller 0", "SCSI controller 1"]);
  });
});

const hasXmllint = Bun.which("xmllint") !== null || process.env.CI === "true";

describe.skipIf(!hasXmllint)("descriptors by the grammar of OVF", () => {
  const disk = { file: "d.vmdk", fileBytes: 7, virtualBytes: 1 << 20 };
  const buses = ["AHCI", "NVME", "SCSI", "USB", "VIRT"] as const;
  const built = (efi: boolean, nics: number, disks: number): string =>
    buildOvf({
      name: "R & D",
      processors: 2,
      memoryMiB: 64,
      efi,
      secureBoot: efi,
      nics: Array.from({ length: nics }, (_, at) => `02:00:00:00:00:0${at}`),
      arch: "x86_64",
      uuid: undefined,
      disks: Array.from({ length: disks }, (_, at) => ({ ...disk, bus: buses[at % buses.length]! })),
    });

  test.each<[string, string]>([
    ["one of this program", built(false, 1, 1)],
    ["one by UEFI, with all kinds of disks", built(true, 3, 40)],
    ["one without cards", built(false, 0, 1)],
    ["that of OVF 1.0", ovf1("disk.vmdk", DISK_BYTES)],
    ["that of OVF 2.0", ovf2("disk.vmdk", DISK_BYTES)],
    ["that of a compressed disk", ovf1("disk.vmdk", DISK_BYTES, 'ovf:compression="gzip"')],
  ])("%s is valid", (_, text) => expect(validateOvf(text)).toBe(""));

  test.each<[string, (text: string) => string]>([
    ["an item without a name", (text) => text.replace(/<rasd:ElementName>[^<]*<.rasd:ElementName>/, "")],
    ["another order", (text) => text.replace(/(<rasd:InstanceID>.*)\n(.*ResourceType>)/, "$2\n$1")],
    ["no id of the disk", (text) => text.replace(/ ovf:diskId="[^"]*"/, "")],
    ["no References", (text) => text.replace(/<References>[^]*<.References>/, "")],
    ["a size that is no number", (text) => text.replace(/ovf:size="\d+"/, 'ovf:size="x"')],
  ])("one with %s is not", (_, change) => expect(validateOvf(change(built(true, 1, 1)))).not.toBe(""));
});

const ovf = (): string => ovf1("disk.vmdk", DISK_BYTES);
const named = (name: string): [string, Uint8Array] => [name, Buffer.from("x")];
const link = (type: string): Buffer => {
  const header = buildTarHeader("disk.vmdk", 0, 1);
  header.write(type, 156);
  const sum = header.reduce((all, byte, at) => all + (at >= 148 && at < 156 ? 32 : byte), 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
};

const first = (): Buffer => tarOf([["machine.ovf", Buffer.from(ovf())]]).subarray(0, -1024);

describe("import of an OVA made by hand", () => {
  let vmdk: Buffer;
  beforeAll(() => {
    const raw = place("raw");
    writeFileSync(raw, Buffer.alloc(DISK_BYTES).fill(7, 0, 1 << 16));
    vmdk = vmdkOf(raw, place("disk.vmdk"));
  });

  test("OVF 1.0 with a SHA-1 manifest at its end", async () => {
    const sum = new Bun.CryptoHasher("sha1").update(vmdk).digest("hex");
    writeOva(place("one.ova"), {
      ovf: ovf(),
      files: [
        ["disk.vmdk", vmdk],
        ["machine.mf", Buffer.from(`SHA1 (disk.vmdk) = ${sum}\n`)],
      ],
    });
    const { stderr } = await box.ok("import", place("one.ova"), "../one");
    expect(stderr).toContain("does not list machine.ovf");
    expect(stderr).toContain("disk 0 is on AHCI: its controller was IDE PIIX4");
    expect(stderr).toContain(`imported appliance to ${place("one")}\n`);
    expect(seen(box, join(place("one"), ".work/disk-0.img"))).toEqual([7]);
    const status = await box.json("-d", place("one"), "status");
    expect(status).toMatchObject({ name: "appliance", cores: 2, memoryMiB: 96, uefi: false });
    expect(status.nics).toHaveLength(2);
  });

  test("is in a directory with the VM's name by default, which must be new", async () => {
    writeOva(place("file.ova"), { ovf: ovf(), files: [["disk.vmdk", vmdk]] });
    await box.ok("import", place("file.ova"));
    expect(existsSync(box.path("appliance/.work"))).toBe(true);
    await box.ends(73, ["import", place("file.ova")], "exists already");
    rmSync(box.path("appliance"), { recursive: true });
    const describing = (name: string): string => ovf().replace('ovf:id="appliance"', `ovf:id="${name}"`);
    for (const name of ["../x", "a/b", ""]) {
      writeOva(place("file.ova"), { ovf: describing(name), files: [["disk.vmdk", vmdk]] });
      await box.ends(74, ["import", place("file.ova")], "file.ova DIR");
    }
    writeOva(place("file.ova"), { ovf: describing("a/b"), files: [["disk.vmdk", vmdk]] });
    await box.ends(0, ["import", place("file.ova"), "../renamed"], "it is named renamed: 'a/b' cannot be");
  });

  test("OVF 2.0 with a compressed disk and an empty one, as written by GNU tar", async () => {
    const dir = place("two-files");
    mkdirSync(dir);
    writeFileSync(join(dir, "m.ovf"), ovf2("d.vmdk.gz", DISK_BYTES, 'ovf:compression="gzip"'));
    writeFileSync(join(dir, "d.vmdk.gz"), Bun.gzipSync(new Uint8Array(vmdk)));
    writeFileSync(join(dir, "other.iso"), "x".repeat(5000));
    Bun.spawnSync(["tar", "--format=pax", "-cf", place("two.ova"), "./m.ovf", "./other.iso", "./d.vmdk.gz"], {
      cwd: dir,
    });
    await box.ok("import", place("two.ova"), "../two", "--no-uefi");
    expect(seen(box, join(place("two"), ".work/disk-0.img"))).toEqual([7]);
    const status = await box.json("-d", place("two"), "status");
    expect(status).toMatchObject({ name: "R&D ☺", memoryMiB: 128, uefi: false, nics: [] });
    expect(status.disks).toHaveLength(2);
    expect(readFileSync(join(place("two"), ".work/guest.env"), "utf8")).toContain('"NVME=disk-0.img"');
  });

  const whole = (): Buffer =>
    tarOf([
      ["m.ovf", Buffer.from(ovf())],
      ["disk.vmdk", vmdk],
    ]);
  test.each<[string, () => Uint8Array, string]>([
    ["an absolute name", () => tarOf([["m.ovf", Buffer.from(ovf())], named("/tmp/x")]), "has a member"],
    ["a name above", () => tarOf([["m.ovf", Buffer.from(ovf())], named("../x")]), "has a member"],
    ["a name twice", () => tarOf([["m.ovf", Buffer.from(ovf())], named("a"), named("a")]), "twice"],
    ["a symlink", () => Buffer.concat([first(), link("2")]), "no regular file"],
    ["a hard link", () => Buffer.concat([first(), link("1")]), "no regular file"],
    ["a device", () => Buffer.concat([first(), link("4")]), "no regular file"],
    ["a sparse member", () => Buffer.concat([first(), link("S")]), "no regular file"],
    ["more than fits", () => Buffer.concat([first(), buildTarHeader("disk.vmdk", 2 ** 50, 1)]), "no space"],
    [
      "too many members",
      () =>
        tarOf([["m.ovf", Buffer.from(ovf())], ...Array.from({ length: 1001 }, (_, at) => named(`f${at}`))]),
      "too many",
    ],
    ["no disk", () => tarOf([["m.ovf", Buffer.from(ovf())]]), "disk.vmdk is missing"],
    ["a cut", () => whole().subarray(0, -2000), "nothing is kept"],
    ...[1, 512, 513, 1024].map((bytes): [string, () => Uint8Array, string] => [
      `an end that lacks ${bytes} bytes`,
      () => whole().subarray(0, -bytes),
      "it is truncated",
    ]),
    [
      "something after the first block of zeroes",
      () => Buffer.concat([whole().subarray(0, -512), Buffer.alloc(512, "x")]),
      "its end is damaged",
    ],
    [
      "a wrong checksum",
      () =>
        tarOf([
          ["m.ovf", Buffer.from(ovf())],
          ["m.mf", Buffer.from(`SHA256(disk.vmdk)= ${"0".repeat(64)}`)],
          ["disk.vmdk", vmdk],
        ]),
      "checksum of disk.vmdk",
    ],
    [
      "a manifest without the disk",
      () =>
        tarOf([
          ["m.ovf", Buffer.from(ovf())],
          ["m.mf", Buffer.from(`SHA256(m.ovf)= ${sha256(ovf())}`)],
          ["disk.vmdk", vmdk],
        ]),
      "does not list disk.vmdk",
    ],
    ...["parentCID=12345678", "parentCID=fffffffe", 'parentFileNameHint="x.vmdk"'].map(
      (line): [string, () => Uint8Array, string] => [
        `a disk with ${line}`,
        () => {
          const delta = Buffer.from(vmdk);
          const at = delta.indexOf("parentCID=ffffffff");
          expect(at).toBeGreaterThan(0);
          delta.write(`${line}\n`, at);
          return tarOf([
            ["m.ovf", Buffer.from(ovf())],
            ["disk.vmdk", delta],
          ]);
        },
        "external backing file",
      ],
    ),
    [
      "a disk that names others",
      () =>
        tarOf([
          ["m.ovf", Buffer.from(ovf())],
          ["disk.vmdk", Buffer.from('# Disk DescriptorFile\nversion=1\nRW 1 FLAT "/etc/passwd" 0\n')],
        ]),
      "external",
    ],
    [
      "a compressed disk that explodes",
      () =>
        tarOf([
          ["m.ovf", Buffer.from(ovf1("disk.vmdk", DISK_BYTES, 'ovf:compression="gzip"'))],
          ["disk.vmdk", Bun.gzipSync(Buffer.alloc(80 << 20))],
        ]),
      "larger than its disk",
    ],
    ["no descriptor", () => tarOf([named("x")]), "no OVF descriptor"],
    ["no archive", () => Buffer.alloc(2048, "x"), "not a tar archive"],
  ])("is refused with %s", async (_, content, words) => {
    writeFileSync(place("bad.ova"), content());
    const result = await box.vm("import", place("bad.ova"), "../bad");
    expect([73, 74]).toContain(result.status);
    expect(result.stderr).toContain(words);
    expect(existsSync(place("bad"))).toBe(false);
  });

  test.each<[string, string, string]>([
    ["a document type", '<!DOCTYPE x [<!ENTITY a "b">]><Envelope/>', "document type"],
    ["an entity of its own", "<Envelope>&a;</Envelope>", "entity"],
    ["an open element", "<Envelope><a></Envelope>", "well-formed"],
    ["two roots", "<a/><b/>", "well-formed"],
    ["deep elements", "<a>".repeat(99) + "</a>".repeat(99), "too many elements"],
    ["many elements", `<a>${"<b/>".repeat(20_001)}</a>`, "too many elements"],
    ["text", "hello", "well-formed"],
  ])("XML with %s is refused", (_, text, words) => {
    expect(() => parseXml(text)).toThrow(words);
  });

  test.each<[string, (text: string) => string, string]>([
    [
      "two machines",
      (text) => text.replace("</VirtualSystem>", "</VirtualSystem><VirtualSystem/>"),
      "2 virtual machines",
    ],
    [
      "a file elsewhere",
      (text) => text.replace('"disk.vmdk"', '"http://x/d"'),
      "not in a file of the archive",
    ],
    ["a path", (text) => text.replace('"disk.vmdk"', '"../d"'), "not in a file of the archive"],
    ["an unknown disk", (text) => text.replace("/disk/vmdisk1", "/disk/other"), "does not describe"],
    [
      "a size that is no number",
      (text) => text.replace(/capacity="\d+"/, 'capacity="-1"'),
      "the size of the disk",
    ],
    ["unknown units", (text) => text.replace("MegaBytes", "parsec"), "unknown units"],
    ["a chunked file", (text) => text.replace("ovf:href", 'ovf:chunkSize="1" ovf:href'), "several parts"],
    [
      "a parent",
      (text) => text.replace("ovf:fileRef", 'ovf:parentRef="x" ovf:fileRef'),
      "depends on another",
    ],
  ])("a descriptor with %s is refused", (_, change, words) => {
    expect(() => parseOvfDescriptor(change(ovf()))).toThrow(words);
  });
});

test("an OVA is not mistaken for an export, and the other way round", async () => {
  writeFileSync(place("x.bin"), tarOf([["m.ovf", Buffer.from("x")]]));
  await box.ends(74, ["import", place("x.bin"), "../x"], "--format=ova");
  rmSync(place("x.bin"));
  qemuImg("create", "-q", "-f", "qcow2", place("x.qcow2"), "1M");
  await box.ends(74, ["import", place("x.qcow2"), "../x"], "not an export of this program");
});
