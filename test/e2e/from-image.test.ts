/** VMs from images: every format of qemu, overlays, hostile images, and the cloud-init volume in a guest. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Temp } from "../fixtures/temp.ts";
import type { Guests } from "../guests/build.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import {
  allocated,
  configure,
  expectError,
  listing,
  mode,
  names,
  rootTest,
  runNumber,
  sampled,
  sha256,
  shell,
  smallSandbox,
  suite,
} from "./tools.ts";

let iso: Guests;
let temp: Temp;

/** An installed guest's disk, which has booted once; in every format. */
const image = (name: string): string => temp.path(name);

/** The first lines of a run that continued from that disk. */
const BOOTED = "BOOTED FROM DISK\nRUN 2\n";

const onTmpfs = statfsSync(tmpdir()).type === 0x01021994;

const diskOf = (box: Sandbox): string => join(box.work, "disk-0.img");

async function virtualMiB(path: string): Promise<number> {
  return (await Bun.$`qemu-img info --output=json ${path}`.json())["virtual-size"] / (1 << 20);
}

/** Nothing was created, nothing was left. */
function expectNothing(box: Sandbox): void {
  expect(listing(box.tmp)).toEqual([]);
  expect(names(box.host)).toEqual([]);
}

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here";

function giveKey(box: Sandbox, text: string = KEY): void {
  mkdirSync(join(box.home, ".ssh"), { recursive: true });
  writeFileSync(join(box.home, ".ssh/id_ed25519.pub"), `${text}\n`);
}

/** A VM with a copy of the image that the test may damage. */
async function linkedVm(box: Sandbox, format = "qcow2"): Promise<string> {
  const base = join(box.top, "base, image");
  copyFileSync(image(`disk.${format}`), base);
  await box.ok(["create", "G", "--linked", "--from", base]);
  return base;
}

const over = (format: string) => (path: string) =>
  shell(`qemu-img create -q -u -f ${format} -b /etc/shadow -F raw '${path}' 1M`, dirname(path));

/** The guest's view: the device, and files by name. */
function shown(box: Sandbox): Record<string, string> {
  const parts = box.console().split(/^== /m).slice(1, -1);
  return Object.fromEntries(
    parts.map((part) => [part.split("\n")[0]!, part.slice(part.indexOf("\n") + 1, -1)]),
  );
}

const seedOf = (box: Sandbox): string => join(box.work, "vm-seed.img");

/** A file of the cloud-init volume, read with xorriso. */
const fileInSeed = (box: Sandbox, name: string): Promise<string> =>
  shell(
    `xorriso -osirrox on -indev .work/vm-seed.img -extract ${name} read >/dev/null 2>&1; cat read; rm -f read`,
    box.host,
  );

/** A PATH with these programs, and create's other requirements. */
function programsOf(box: Sandbox, makers: Record<string, string>): string {
  const bin = join(box.top, "bin");
  mkdirSync(bin);
  for (const name of ["qemu-img", "setpriv"])
    if (!makers[name]) symlinkSync(Bun.which(name)!, join(bin, name));
  for (const [name, script] of Object.entries(makers)) {
    writeFileSync(join(bin, name), script);
    chmodSync(join(bin, name), 0o755);
  }
  return bin;
}

suite(
  "a VM from an image",
  () => {
    beforeAll(async () => {
      iso = await guests();
      temp = new Temp();
      using box = smallSandbox();
      await box.ok(["@create", "G", iso.installerIso, "@run", "@run"]);
      copyFileSync(diskOf(box), image("disk.qcow2"));
      const more = [
        "-c -O qcow2 disk.qcow2 packed.qcow2",
        "-O vmdk -o subformat=streamOptimized disk.qcow2 stream.vmdk",
      ];
      for (const format of ["raw", "vmdk", "vdi", "vhdx", "vpc", "qed"])
        more.push(`-O ${format} disk.qcow2 disk.${format}`);
      await shell(more.map((words) => `qemu-img convert ${words}`).join("\n"), temp.top);
      copyFileSync(image("disk.raw"), image("no name, no suffix: x"));
    });

    afterAll(() => temp[Symbol.dispose]());

    test("read by io_uring, or by threads if its file ends within a sector", async () => {
      using box = smallSandbox();
      await box.ok(["--disks=VIRT=1M", "create", "G", `--from=${image("packed.qcow2")}`]);
      for (const [more, aio] of [
        ["", onTmpfs ? /^(native|threads)$/ : /^io_uring$/],
        ["x", /^threads$/],
      ] as const) {
        appendFileSync(diskOf(box), more);
        // The disk's own guest switches off at once, perhaps before `status` looks.
        await box.ok(["run", "--detach", iso.hangIso]);
        expect(JSON.parse((await box.ok(["status", "--json"])).stdout).disks[0].aio).toMatch(aio);
        await box.ok(["stop", "--force"]);
        await box.ok(["run"]);
        expect(box.console()).toContain("BOOTED FROM DISK");
      }
    });

    test.each(
      sampled([
        "disk.qcow2",
        "packed.qcow2",
        "disk.raw",
        "no name, no suffix: x",
        "disk.vmdk",
        "stream.vmdk",
        "disk.vdi",
        "disk.vhdx",
        "disk.vpc",
        "disk.qed",
      ]),
    )("%s: an own copy that boots, sparse", async (name) => {
      using box = smallSandbox();
      const before = sha256(image(name));
      await box.ok(["create", "G", "--from", image(name)]);
      expect(mode(diskOf(box))).toBe("600");
      expect(names(box.tmp)).toHaveLength(1);
      expect(names(box.work)).toEqual([
        ".host",
        ".in",
        ".out",
        ".vm.json",
        "FIRSTTIME",
        "disk-0.img",
        "guest.env",
      ]);
      expect(allocated(diskOf(box))).toBeLessThan(1 << 20);
      await box.ok(["run"]);
      expect(box.console()).toBe(BOOTED);
      expect(box.read(".work/run-vm.sh")).not.toMatch(/-no-reboot|drive=cd0/);
      expect(sha256(image(name))).toBe(before);
    });

    test("the first entry of DISKS sets the bus, and a larger size; the others are created empty", async () => {
      using box = smallSandbox();
      await box.ok(["-D", "VIRT=40M,SCSI=24M", "@create", "--from", image("disk.raw"), "G", "@run"]);
      expect(runNumber(box)).toBe(2);
      expect(box.read(".work/guest.env")).toContain(
        'IMAGES=(\n    "VIRT=disk-0.img"\n    "SCSI=disk-1.img"\n)\n',
      );
      expect(await virtualMiB(diskOf(box))).toBe(40);
      expect(await virtualMiB(join(box.work, "disk-1.img"))).toBe(24);
    });

    test.each(["", "--linked"])("--disk-size grows, and never shrinks %s", async (linked) => {
      using box = smallSandbox();
      const from = ["--from", image("disk.qcow2"), ...(linked ? [linked] : [])];
      expectError(
        await box.vm(["create", "G", ...from, "--disk-size=8M"]),
        64,
        /--disk-size: 8\.0 MiB is less than the size of the image, 16 MiB/,
      );
      expectNothing(box);
      // A smaller entry of DISKS does not shrink the image.
      await box.ok(["-D", "AHCI=1M", "@create", "G", ...from, "@destroy"]);
      await box.ok(["-D", "AHCI=1M", "@create", "G", ...from, "--disk-size=1G"]);
      expect(await virtualMiB(diskOf(box))).toBe(1024);
      await box.ok(["run"]);
      expect(box.console()).toBe(BOOTED);
    });

    test("an additional CD is booted first, once", async () => {
      using box = smallSandbox();
      await box.ok(["@create", "--from", image("disk.qcow2"), "G", iso.haltIso, "@run"]);
      expect(box.console()).toContain("BOOTED FROM CD");
      await box.ok(["run"]);
      expect(box.console()).toBe(BOOTED);
    });

    test("a CD of a settings file is not for it", async () => {
      using box = smallSandbox();
      configure(box, `MEMORY=64M\nPORT=\nISO=${iso.haltIso}\n`);
      await box.ok(["@create", "G", "--from", image("disk.qcow2"), "@run"]);
      expect(box.console()).toBe(BOOTED);
    });

    test("in place, with a snapshot and back", async () => {
      using box = smallSandbox();
      giveKey(box);
      await box.ok([
        "--inplace",
        "@create",
        "--cloud-init",
        "--from",
        image("disk.vdi"),
        "G",
        "@run",
        "@backup",
      ]);
      expect(names(box.host)).toContain("vm-seed.img");
      await box.ok(["destroy"]);
      expect(names(box.host)).toEqual(["backups", "guest.env"]);
      await box.ok(["run"]);
      expect(runNumber(box)).toBe(3);
    });

    describe("linked", () => {
      test.each(sampled(["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"]))(
        "on %s: the overlay has only changes",
        async (format) => {
          using box = smallSandbox();
          const base = await linkedVm(box, format);
          const before = sha256(base);
          const info = await Bun.$`qemu-img info --output=json ${diskOf(box)}`.json();
          expect(info).toMatchObject({ "backing-filename": base, "backing-filename-format": format });
          await box.ok(["run"]);
          expect(box.console()).toBe(BOOTED);
          await box.ok(["run"]);
          expect(runNumber(box)).toBe(3);
          expect(sha256(base)).toBe(before);
        },
      );

      test("a snapshot contains everything, without the backing file", async () => {
        using box = smallSandbox();
        const base = await linkedVm(box);
        await box.ok(["@run", "@backup", "S0", "@destroy"]);
        rmSync(base);
        expect(names(box.path("backups/S0"))).toEqual([
          "DESCRIPTION",
          "SHA256SUMS",
          "TS",
          "disk-0.img.gz",
          "guest.env",
          "manifest.json",
        ]);
        await shell("sha256sum --quiet -c SHA256SUMS", box.path("backups/S0"));
        await box.ok(["@restore", "@run"]);
        expect(runNumber(box)).toBe(3);
        const info = await Bun.$`qemu-img info --output=json ${diskOf(box)}`.json();
        expect(info["backing-filename"]).toBeUndefined();
        expect(await Bun.$`qemu-img check -q ${diskOf(box)}`.nothrow()).toHaveProperty("exitCode", 0);
        await box.ok(["@backup", "@destroy"]);
      });

      test("every command that needs it reports a missing or changed backing file", async () => {
        using box = smallSandbox();
        const base = await linkedVm(box);
        await box.ok(["run"]);
        renameSync(base, `${base}.old`);
        for (const command of ["run", "backup"])
          expectError(
            await box.vm([command]),
            66,
            /the backing file .*base, image of the disk .* is missing.*\n.*put it back/s,
          );
        symlinkSync(`${base}.old`, base);
        await box.ok(["run"]);
        expect(runNumber(box)).toBe(3);
        utimesSync(base, 1e9, 1e9);
        for (const command of ["run", "backup"])
          expectError(
            await box.vm([command]),
            74,
            /the backing file .*base, image of the disk .* has changed.*\n.*put the old image back/s,
          );
        expect(existsSync(box.path("backups"))).toBe(false);
        await box.ok(["destroy"]);
        expect(names(box.tmp)).toEqual([]);
      });

      test("two VMs on one image at the same time", async () => {
        using box = smallSandbox();
        using other = smallSandbox();
        const base = await linkedVm(box);
        await other.ok(["create", "G", "--linked", "--from", base]);
        const [one, two] = [box.start(["run"]), other.start(["run"])];
        expect([(await one.done).status, (await two.done).status]).toEqual([0, 0]);
        expect([runNumber(box), runNumber(other)]).toEqual([2, 2]);
      });
    });

    describe("refuses, leaving nothing behind:", () => {
      const DESCRIPTOR = `# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "/etc/shadow" 0
`;

      /** A sparse VMDK with only a descriptor (qemu reads the file that it names). */
      function sparseList(): Buffer {
        const bytes = Buffer.alloc(512 + 20 * 512);
        bytes.write("KDMV");
        bytes.writeUInt32LE(1, 4);
        bytes.writeBigUInt64LE(1n, 28);
        bytes.writeBigUInt64LE(20n, 36);
        bytes.write(DESCRIPTOR, 512);
        return bytes;
      }

      test.each<[string, (path: string) => unknown, number, RegExp]>([
        ["qcow2 over /etc/shadow", over("qcow2"), 74, /refers to an external backing file/],
        ["qed over /etc/shadow", over("qed"), 74, /refers to an external backing file/],
        [
          "qcow2 with a data file",
          (path) => shell(`qemu-img create -q -f qcow2 -o data_file=data.raw '${path}' 1M`, dirname(path)),
          74,
          /refers to an external data file/,
        ],
        [
          "vmdk, only a descriptor",
          (path) => writeFileSync(path, DESCRIPTOR),
          74,
          /refers to an external data file/,
        ],
        [
          "vmdk, a disguised descriptor",
          (path) => writeFileSync(path, sparseList()),
          74,
          /refers to an external data file/,
        ],
        [
          "vmdk over another",
          async (path) =>
            shell(`qemu-img create -q -f vmdk -b '${image("disk.vmdk")}' -F vmdk '${path}'`, dirname(path)),
          74,
          /refers to an external backing file/,
        ],
        [
          "a compressed image",
          (path) => shell(`gzip -c '${image("disk.raw")}' >'${path}'`, "/"),
          74,
          /compressed with gzip/,
        ],
        [
          "a truncated image",
          (path) => writeFileSync(path, readFileSync(image("disk.qcow2")).subarray(0, 70_000)),
          74,
          /the image .* is damaged/,
        ],
        ["only a header", (path) => writeFileSync(path, "QFI\xfb", "latin1"), 74, /cannot read the image/],
        ["nothing", () => {}, 66, /the image .* cannot be used: no such file/],
        ["a directory", (path) => mkdirSync(path), 66, /it is a directory/],
        ["a pipe", (path) => shell(`mkfifo '${path}'`, "/"), 66, /neither a file nor a block device/],
      ])("%s", async (_title, make, status, message) => {
        for (const linked of [[], ["--linked"]]) {
          using box = smallSandbox();
          const path = join(box.top, "image");
          await make(path);
          const result = await box.vm(["create", "G", "--from", path, ...linked]);
          expectError(result, status, message);
          expectNothing(box);
        }
      });

      test("one that a running VM writes to", async () => {
        using box = smallSandbox();
        const busy = join(box.top, "busy.qcow2");
        copyFileSync(image("disk.qcow2"), busy);
        const argv = ["-f", "qcow2", "-c", "sleep 60000", busy];
        const holder = Bun.spawn(["qemu-io", ...argv], { stdin: "ignore", stdout: "ignore" });
        try {
          let result = await box.vm(["create", "G", "--from", busy]);
          // Until it has opened the image.
          while (result.status === 0) {
            await box.ok(["destroy"]);
            result = await box.vm(["create", "G", "--from", busy]);
          }
          expectError(result, 75, /is in use/);
          expectNothing(box);
        } finally {
          holder.kill("SIGKILL");
          await holder.exited;
        }
      });

      test("an interrupted copy", async () => {
        using box = smallSandbox();
        const begun = join(box.top, "begun");
        const [img, sleep] = ["qemu-img", "sleep"].map((name) => Bun.which(name));
        const slow = `#!/bin/sh\n[ "$1" = convert ] || exec ${img} "$@"\n>'${begun}'\nexec ${sleep} 60\n`;
        const env = { PATH: programsOf(box, { "qemu-img": slow }) };
        const running = box.start(["create", "G", "--from", image("disk.raw")], { env });
        await until("the copy", () => existsSync(begun));
        running.kill("SIGTERM");
        expectError(await running.done, 143, /interrupted by SIGTERM/);
        expect(await box.leftovers()).toEqual([]);
        expectNothing(box);
      });

      rootTest("one without space for it", async () => {
        using box = smallSandbox();
        const large = join(box.top, "large");
        writeFileSync(large, crypto.getRandomValues(Buffer.alloc(60_000)));
        await shell(`for i in $(seq 100); do cat large; done >all`, box.top);
        await shell(`mount -t tmpfs -o size=2m,mode=700 vm-test tmp`, box.top);
        try {
          expectError(
            await box.vm(["create", "G", "--from", join(box.top, "all")]),
            73,
            /no (room|space) in/,
          );
          expectNothing(box);
          await box.ok(["create", "G", "--linked", "--from", join(box.top, "all")]);
        } finally {
          await shell("umount tmp", box.top);
        }
      });
    });

    describe("the cloud-init volume", () => {
      /** Prints every file of the volume with the label cidata (ECMA-119, 8.4.7). */
      const SHOW = `
for b in /sys/block/vd*; do
  d=/dev/\${b##*/}
  [ "$(dd if=$d bs=1 skip=32808 count=32 2>/dev/null)" = "cidata$(printf %26s)" ] || continue
  echo "== $(cat $b/ro) $(cat $b/serial)"
  mount -t iso9660 -o ro $d /mnt
  for f in /mnt/*; do echo "== \${f##*/}"; cat $f; echo; done
  umount /mnt
done
echo == end
`;
      function linuxBox(): Sandbox {
        const box = smallSandbox();
        configure(box, "MEMORY=256M\nCORES=1\nPORT=\nDISKS=(AHCI=16M VIRT=16M)\n");
        box.write("guest.sh", SHOW);
        return box;
      }

      test("has keys and name, for the image's default user; is kept in a snapshot", async () => {
        using box = linuxBox();
        giveKey(box, `# a comment\n\n${KEY}\n${KEY}`);
        await box.ok(["--keep-cd", "@create", "--cloud-init", "Web server №1", iso.linuxIso, "@run"]);
        const seen = shown(box);
        expect(Object.keys(seen)).toEqual(["1 seed", "meta-data", "user-data"]);
        expect(seen["user-data"]).toStartWith("#cloud-config\n");
        expect(Bun.YAML.parse(seen["user-data"]!)).toEqual({ ssh_authorized_keys: [KEY] });
        const meta = Bun.YAML.parse(seen["meta-data"]!) as Record<string, string>;
        expect(meta).toEqual({
          "instance-id": expect.stringMatching(/^vm-[0-9a-f-]{36}$/),
          "local-hostname": "web-server-no1",
        });
        expect(mode(seedOf(box))).toBe("600");
        const before = sha256(seedOf(box));
        await box.ok(["@backup", "@destroy", "@restore", "@run", iso.haltIso]);
        expect(sha256(seedOf(box))).toBe(before);
        expect(box.read(".work/run-vm.sh")).toContain("vm-seed.img");
        rmSync(seedOf(box));
        await box.ok(["run", iso.haltIso]);
        expect(box.read(".work/run-vm.sh")).not.toContain("vm-seed.img");
        // Another VM is another instance.
        await box.ok(["@destroy"]);
        rmSync(box.path("backups"), { recursive: true });
        rmSync(box.path("guest.env"));
        await box.ok(["create", "--cloud-init", "--user=me", "G"]);
        expect(Bun.YAML.parse(await fileInSeed(box, "user-data"))).toMatchObject({
          users: [{ name: "me", ssh_authorized_keys: [KEY] }],
        });
        expect(Bun.YAML.parse(await fileInSeed(box, "meta-data"))).not.toMatchObject({
          "instance-id": meta["instance-id"],
        });
      });

      test("has the user's own user-data, byte for byte", async () => {
        using box = linuxBox();
        const text = "#!/bin/sh\necho 'Ёлка' # no newline at the end";
        box.write("my data", text);
        await box.ok(["create", "--user-data=my data", "G"]);
        expect(await fileInSeed(box, "user-data")).toBe(text);
      });

      test("makes the first disk VIRT, unless DISKS is set", async () => {
        using box = smallSandbox();
        giveKey(box);
        configure(box, "MEMORY=64M\nCORES=1\nPORT=\n");
        await box.ok(["@create", "--from", image("disk.qcow2"), "--cloud-init", "G", "@run"]);
        expect(runNumber(box)).toBe(2);
        expect(box.read(".work/guest.env")).toContain('"VIRT=disk-0.img"');
        await box.ok(["destroy"]);
        await box.ok([
          "-D",
          "SCSI=16M",
          "@create",
          "--from",
          image("disk.qcow2"),
          "--cloud-init",
          "G",
          "@run",
        ]);
        expect(box.read(".work/guest.env")).toContain('"SCSI=disk-0.img"');
      });

      test.each<[string, (box: Sandbox) => readonly string[], number, RegExp]>([
        ["no key", () => ["--cloud-init"], 66, /no SSH key in/],
        [
          "a private key",
          (box) => (giveKey(box, "-----BEGIN OPENSSH PRIVATE KEY-----"), ["--cloud-init"]),
          78,
          /private key/,
        ],
        ["missing user-data", () => ["--user-data=none"], 66, /the user-data .*none cannot be used/],
        ["a directory", () => ["--user-data=."], 66, /it is a directory/],
        ["both", () => ["--user=me", "--user-data=x"], 64, /exclude each other/],
        ["--linked alone", () => ["--linked"], 64, /--linked needs --from/],
      ])("%s: an error, and nothing is left", async (_title, options, status, message) => {
        using box = smallSandbox();
        expectError(await box.vm(["create", ...options(box), "G"]), status, message);
        expectNothing(box);
      });

      const VIA = `#!/bin/sh\nexec ${Bun.which("xorriso")} -as mkisofs "$@"\n`;
      const FAILS = "#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n";

      test.each<[string, Record<string, string>, number, RegExp]>([
        ["genisoimage", { genisoimage: VIA }, 0, /created G/],
        ["mkisofs", { mkisofs: VIA }, 0, /created G/],
        ["none", {}, 69, /xorriso, genisoimage and mkisofs are not installed/],
        [
          "a failing one",
          { xorriso: FAILS },
          73,
          /cannot create cloud-init's volume: no space left on device/,
        ],
      ])("created by %s", async (_title, makers, status, message) => {
        using box = smallSandbox();
        giveKey(box);
        const env = { PATH: programsOf(box, makers) };
        const result = await box.vm(["create", "--cloud-init", "--from", image("disk.raw"), "G"], { env });
        if (status !== 0) {
          expectError(result, status, message);
          return expectNothing(box);
        }
        expect(result.stderr).toMatch(message);
        expect(await Bun.$`blkid -o value -s LABEL ${join(box.work, "vm-seed.img")}`.text()).toBe("cidata\n");
      });
    });
  },
  ["qemu-io", "gzip", "blkid"],
);
