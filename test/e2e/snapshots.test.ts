/** Snapshots on disk: contents, permissions, and damage. */
import { beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { binary, type Sandbox } from "./harness.ts";
import {
  allocated,
  expectError,
  installed,
  listing,
  mode,
  names,
  runNumber,
  sha256,
  shell,
  smallSandbox,
  suite,
} from "./tools.ts";

/** One that has never run, for tests that do not need the guest's data. */
async function created(options: readonly string[] = []): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok([...options, "create", "G"]);
  return box;
}

/** Changes one bit in the middle of a file. */
function flip(path: string): void {
  const bytes = readFileSync(path);
  const at = bytes.length >> 1;
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(path, bytes);
}

suite(
  "snapshots",
  () => {
    test("contain everything, with permissions for the owner only, whatever the umask", async () => {
      using box = await created();
      writeFileSync(join(box.work, "vm.defaults"), "-no-hpet\n");
      await box.ok(["backup", "one", "before the update"], {
        program: ["sh", "-c", 'umask 0; exec "$0" "$@"', binary],
      });
      const dir = box.path("backups/one");
      expect(names(dir)).toEqual([
        "DESCRIPTION",
        "SHA256SUMS",
        "TS",
        "disk-0.img.gz",
        "guest.env",
        "manifest.json",
        "vm.defaults",
      ]);
      for (const path of [box.path("backups"), dir]) expect(mode(path)).toBe("700");
      for (const name of names(dir)) expect(`${name} ${mode(join(dir, name))}`).toBe(`${name} 600`);
      expect(box.read("backups/one/DESCRIPTION")).toBe("before the update\n");
      expect(box.read("backups/one/TS")).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$/);
      expect(box.read("backups/one/vm.defaults")).toBe("-no-hpet\n");
      expect(box.read("vm.defaults")).toBe("-no-hpet\n");
      expect(mode(box.path("guest.env"))).toBe("600");
    });

    test("can be verified with sha256sum, and unpacked by hand with unpigz", async () => {
      using box = await created(["--disks=AHCI=16M,VIRT=32M"]);
      await box.ok(["backup"]);
      const dir = box.path("backups/S0");
      const sums = box.read("backups/S0/SHA256SUMS");
      for (const name of names(dir)) if (name !== "SHA256SUMS") expect(sums).toContain(`  ${name}\n`);
      await shell("sha256sum --strict -c SHA256SUMS", dir);
      for (const disk of ["disk-0.img", "disk-1.img"])
        await shell(`unpigz -c ${disk}.gz | cmp - ${box.path(".work", disk)}; gzip -t ${disk}.gz`, dir);
    });

    test("the manifest has sizes, format, tool version and consistency", async () => {
      using box = await installed();
      await box.ok(["backup", "clean"]);
      const { stdout } = await box.ok(["--version"]);
      const manifest = JSON.parse(box.read("backups/clean/manifest.json"));
      expect(manifest).toMatchObject({
        format: "gz",
        tool: stdout.trim(),
        guest: "G",
        consistency: "offline",
      });
      expect(manifest.files).toMatchObject([
        { name: "disk-0.img", file: "disk-0.img.gz", virtualBytes: 16 << 20 },
      ]);
    });

    test("names: S0, S1, the next number without limit, or the user's", async () => {
      using box = await created();
      await box.ok(["@backup", "@backup"]);
      mkdirSync(box.path("backups/S100"));
      await box.ok(["backup"]);
      await box.ok(["backup", "list"]);
      await box.ok(["backup", "2023-05-10 перед обновлением"]);
      expect(names(box.path("backups"))).toEqual([
        "2023-05-10 перед обновлением",
        "LAST",
        "S0",
        "S1",
        "S100",
        "S101",
        "list",
      ]);
      expect(readlinkSync(box.path("backups/LAST"))).toBe("2023-05-10 перед обновлением");
    });

    test("refuses invalid names, without changes", async () => {
      using box = await created();
      const before = listing(box.top);
      for (const name of ["../x", "a/b", ".hidden", "-x", "LAST", "..", "a\nb"]) {
        expectError(await box.vm(["backup", "--", name]), 64, /name|empty/);
        if (name !== "LAST") expectError(await box.vm(["restore", "--", name]), 64, /name|empty/);
      }
      expect(listing(box.top)).toEqual(before);
    });

    test("a description may start with a dash, or have several lines", async () => {
      using box = await created();
      await box.ok(["backup", "A", "-first try, --with dashes"]);
      await box.ok(["backup", "--", "B", "-x"]);
      await box.ok(["backup", "C", "two\nlines of «text»"]);
      await box.ok(["@backup", "D", "--force", "@backup", "E"]);
      await box.ok(["backup", "F", "--", "-y"]);
      const description = (name: string): string => box.read("backups", name, "DESCRIPTION");
      expect(description("F")).toBe("-y\n");
      expect(description("A")).toBe("-first try, --with dashes\n");
      expect(description("B")).toBe("-x\n");
      expect(description("C")).toBe("two\nlines of «text»\n");
      expect(description("D")).toBe("--force\n");
      expect(description("E").trim()).toBe("");
    });

    test("a restore of an older one keeps LAST, the next backup moves it", async () => {
      using box = await created();
      await box.ok(["@backup", "@backup", "@restore", "S0"]);
      expect(readlinkSync(box.path("backups/LAST"))).toBe("S1");
      await box.ok(["backup"]);
      expect(readlinkSync(box.path("backups/LAST"))).toBe("S2");
    });

    test("restore LAST restores the last one", async () => {
      using box = await installed();
      await box.ok(["@backup", "@run", "@restore", "LAST", "@run"]);
      expect(runNumber(box)).toBe(2);
    });

    test("lists snapshots in the order of creation, also within one second", async () => {
      using box = await created();
      const order = ["b", "d", "f", "a", "e", "c"];
      await box.ok(order.flatMap((name) => ["@backup", name]));
      const result = await box.vm(["restore", "x"]);
      expectError(result, 66, /there are: /);
      expect([...result.stderr.matchAll(/(\w) \(/g)].map((match) => match[1]!)).toEqual(order);
    });

    test("restores the earlier program's snapshots: gzip -9, no manifest, no checksums", async () => {
      using box = await installed();
      const old = box.path("backups/S0");
      mkdirSync(old, { recursive: true });
      await shell(`gzip -9 -c ${box.work}/disk-0.img >${old}/disk-0.img.gz`, box.host);
      const settings = [
        'GUESTNAME="OLD"\nQEMUARCH="x86_64"\nSOCKETS="1"\nCORES="1"\nMEMORY="64M"\nUEFI=""\nISO=""\nKEEPCD=""',
        'FORWARDS=""\nHOST="localhost"\nPORT=""\nUSENETDEV="1"',
        'SHARES=(\n\t"mirror:@MIRROR@"\n\t"in:@HOSTDIR@"\n\t"out:rw:@DATADIR@"\n)\nIMAGES=( "AHCI=qcow2=disk-0.img" )\n',
      ];
      writeFileSync(join(old, "guest.env"), `# Generated by vm, do not edit\n\n${settings.join("\n")}`);
      writeFileSync(join(old, "TS"), "2021-03-04 05:06:07\n");
      writeFileSync(join(old, "DESCRIPTION"), "");
      symlinkSync("S0", box.path("backups/LAST"));
      await box.ok(["destroy"]);
      const { stderr } = await box.ok(["restore"]);
      expect(stderr).toContain("2021-03-04 05:06:07");
      await box.ok(["run"]);
      expect(runNumber(box)).toBe(2);
      expect(box.read(".work/run-vm.sh")).toContain("guest=OLD");
      await box.ok(["backup"]);
      expect(readlinkSync(box.path("backups/LAST"))).toBe("S1");
    });

    test("refuses a partial snapshot of the earlier program", async () => {
      using box = await created(["--disks=AHCI=16M,AHCI=16M"]);
      await box.ok(["backup"]);
      const disk = sha256(join(box.work, "disk-0.img"));
      for (const name of ["SHA256SUMS", "manifest.json", "disk-1.img.gz"])
        rmSync(box.path("backups/S0", name));
      expectError(await box.vm(["restore"]), 74, /disk disk-1\.img is missing/);
      expect(sha256(join(box.work, "disk-0.img"))).toBe(disk);
    });

    test("keeps holes", async () => {
      using box = smallSandbox();
      await box.ok(["create", "G"]);
      const disk = (): string => join(box.work, "disk-0.img");
      await shell(
        `rm disk-0.img; qemu-img create -q -f qcow2 -o preallocation=metadata disk-0.img 96M
       qemu-io -c "write -P 7 50M 1M" disk-0.img >/dev/null`,
        box.work,
      );
      const before = { sum: sha256(disk()), size: readFileSync(disk()).length };
      expect(before.size).toBeGreaterThan(90 << 20);
      await box.ok(["@backup", "@restore"]);
      expect({ sum: sha256(disk()), size: readFileSync(disk()).length }).toEqual(before);
      expect(allocated(disk())).toBeLessThan(4 << 20);
    });

    describe("damaged", () => {
      let box: Sandbox;
      beforeAll(async () => {
        box = await installed(["--disks=AHCI=16M,VIRT=16M"]);
        await box.ok(["@backup", "good", "a few words", "@run"]);
        return () => box[Symbol.dispose]();
      });

      /** Damages a copy of the good snapshot, which must be refused. */
      async function refused(name: string, spoil: (dir: string) => unknown, status = 74): Promise<void> {
        const dir = box.path("backups", name);
        cpSync(box.path("backups/good"), dir, { recursive: true });
        await spoil(dir);
        const before = listing(box.work);
        const result = await box.vm(["restore", name]);
        expectError(result, status, /damaged|refusing|incomplete/);
        expect(listing(box.work)).toEqual(before);
        expect(names(box.tmp)).toHaveLength(1);
        expect(await box.leftovers()).toEqual([]);
        rmSync(dir, { recursive: true });
      }

      const files = "DESCRIPTION SHA256SUMS TS disk-0.img.gz disk-1.img.gz guest.env manifest.json".split(
        " ",
      );
      test.each(files)("%s: a flipped bit", (file) => refused("flipped", (dir) => flip(join(dir, file))));
      test.each(files)("%s: truncated", (file) =>
        refused("cut", (dir) => truncateSync(join(dir, file), readFileSync(join(dir, file)).length >> 1)),
      );
      test.each(files)("%s: missing", (file) => refused("missing", (dir) => rmSync(join(dir, file))));
      test("data after a disk's end", () =>
        refused("longer", (dir) => appendFileSync(join(dir, "disk-1.img.gz"), "more")));
      test("an additional disk", () =>
        refused("extra", (dir) => cpSync(join(dir, "disk-0.img.gz"), join(dir, "disk-2.img.gz"))));
      test("a disk that is a symlink", () =>
        refused("link", (dir) => {
          rmSync(join(dir, "disk-0.img.gz"));
          symlinkSync("../good/disk-0.img.gz", join(dir, "disk-0.img.gz"));
        }));
      test("garbage with valid checksums", () =>
        refused("garbage", (dir) => shell("echo garbage >disk-0.img.gz; rm manifest.json SHA256SUMS", dir)));
      test("a disk with a backing file", () =>
        refused("backing", (dir) =>
          shell(
            `rm manifest.json SHA256SUMS
           qemu-img create -q -f qcow2 -b /etc/hostname -F raw disk-0.img 16M; gzip -f disk-0.img`,
            dir,
          ),
        ));
      test("a disk with an external data file", () =>
        refused("data", (dir) =>
          shell(
            `rm manifest.json SHA256SUMS
           qemu-img create -q -f qcow2 -o data_file=x.raw disk-0.img 16M; gzip -f disk-0.img`,
            dir,
          ),
        ));
      test("a raw disk", () =>
        refused("raw", (dir) =>
          shell("rm manifest.json SHA256SUMS; truncate -s 16M disk-0.img; gzip -f disk-0.img", dir),
        ));
      test("run without working files does not start a damaged snapshot", async () => {
        using other = await installed();
        await other.ok(["@backup", "@destroy"]);
        flip(other.path("backups/S0/disk-0.img.gz"));
        expectError(await other.vm(["run"]), 74, /damaged/);
        expect(names(other.tmp)).toEqual([]);
        expect(existsSync(other.path(".work"))).toBe(false);
      });
      test("the good one is still good", async () => {
        await box.ok(["@restore", "good", "@run"]);
        expect(runNumber(box)).toBe(2);
      });
    });
  },
  ["gzip", "unpigz", "qemu-io", "sha256sum"],
);
