/** Damaged disks, settings and parents of snapshots. No guest runs. */
import { expect, test } from "bun:test";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Sandbox } from "./harness.ts";
import { configure, expectError, listing, names, sampled, shell, smallSandbox, suite } from "./tools.ts";

/** A VM with some data, and two snapshots: good1 and good2. */
async function withGood(format: string, images = "DISKS=(VIRT=64M)"): Promise<Sandbox> {
  const box = new Sandbox();
  configure(box, `MEMORY=64M\nCORES=1\nPORT=\n${images}\nKEEP_LAST=2\nSNAPSHOT_FORMAT=${format}\n`);
  await box.ok(["create", "G"]);
  await shell("qemu-io -f qcow2 -c 'write -P 1 0 8M' disk-0.img", box.work);
  await box.ok(["@backup", "good1", "@backup", "good2"]);
  return box;
}

const flip = (path: string, at: number): void => {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  rmSync(path);
  writeFileSync(path, bytes);
};

suite(
  "snapshots are complete or absent:",
  () => {
    test.each(
      sampled<[what: string, harm: string, why: RegExp, formats?: string[]]>(
        [
          ["missing", "rm disk-0.img", /cannot back up: all disks in .* are gone/, ["gz", "qcow2"]],
          [
            "marked corrupt",
            String.raw`printf '\2' | dd of=disk-0.img bs=1 seek=79 conv=notrunc status=none`,
            /marked it corrupt/,
          ],
          [
            "truncated",
            "truncate -s 1M disk-0.img",
            /disk-0\.img: (qemu-img check found|its bitmap directory is beyond the end of the file: it is truncated)/,
            ["gz", "qcow2"],
          ],
          ["cut within its tables", "truncate -s 128K disk-0.img", /table is beyond the end of the file/],
          [
            "with other refcounts",
            "dd if=/dev/urandom of=disk-0.img bs=64k seek=1 count=2 conv=notrunc status=none",
            /disk-0\.img: /,
          ],
          ["empty", ": > disk-0.img", /no qcow2 header/],
          ["a named pipe", "rm disk-0.img; mkfifo disk-0.img", /it is a named pipe/],
        ],
        1,
        2,
      ),
    )(
      "does not back up a working disk that is %s, and removes no good snapshot for it (74)",
      async (_what, harm, why, formats = ["gz"]) => {
        for (const format of formats) {
          using box = await withGood(format);
          await shell(harm, box.work);
          const before = listing(box.path("backups"));
          expectError(await box.vm(["backup", "--prune"]), 74, why);
          expect(listing(box.path("backups"))).toEqual(before);
          await box.ok(["restore"]);
          await box.ok(["backup", "--prune", "good3"]);
        }
      },
    );

    test("a damaged or future snapshot does not count for a rule", async () => {
      using box = await withGood("gz");
      await box.ok(["@backup", "bad1", "@backup", "bad2"]);
      flip(box.path("backups/bad1/guest.env"), 40);
      flip(box.path("backups/bad2/disk-0.img.gz"), 0);
      const { stdout, stderr } = await box.ok(["prune", "--keep-last=1"]);
      expect(stdout).toBe("remove good1\nkeep good2  last\nkeep bad1  damaged\nkeep bad2  LAST, damaged\n");
      expect(stderr).toContain("keeping bad1: it is damaged: guest.env: its checksum is wrong");
      expect(stderr).toContain("keeping bad2: it is damaged: disk-0.img.gz is no gzip file");
      await box.ok(["restore", "good2"]);
    });

    test.each(sampled(["gz", "qcow2"] as const, 0))(
      "restore checks all small files before any change: %s",
      async (format) => {
        using box = await withGood(format, "DISKS=(VIRT=16M)");
        writeFileSync(join(box.work, "vm-seed.img"), "seed");
        await box.ok(["backup", "seeded"]);
        const working = listing(box.work);
        for (const file of ["guest.env", "manifest.json", "TS", "vm-seed.img.gz"]) {
          const path = box.path("backups/seeded", file);
          const whole = readFileSync(path);
          flip(path, Math.floor(whole.length / 2));
          expectError(await box.vm(["restore", "seeded"]), 74, /backups\/seeded|the snapshot seeded/);
          writeFileSync(path, whole);
        }
        expect(listing(box.work)).toEqual(working);
        await box.ok(["restore", "seeded"]);
      },
    );

    test("restores settings that match their checksum, with a warning; run fails (78)", async () => {
      using box = await withGood("gz");
      const path = box.path("backups/good1/guest.env");
      writeFileSync(path, `${readFileSync(path, "utf8")}[ -e /x ] && MEMORY=1G\n`);
      await shell("sha256sum $(awk '{print $2}' SHA256SUMS) > S; mv S SHA256SUMS", box.path("backups/good1"));
      expect((await box.ok(["restore", "good1"])).stderr).toMatch(/warning: .*guest\.env:\d+: .*NAME=value/);
      expectError(await box.vm(["run"]), 78, /guest\.env:\d+/);
      // Unreadable settings prevent neither a restore nor destroy.
      await box.ok(["verify", "good2"]);
      await box.ok(["restore", "good2"]);
      writeFileSync(join(box.work, "guest.env"), 'IMAGES=("');
      await box.ok(["destroy"]);
    });

    test.each([
      ["0 bytes", ""],
      ["NULs", "\0\0\0\0"],
      ["no IMAGES", "MEMORY=64M\n"],
    ])("a guest.env of %s is an error (78), and its hint repairs it", async (_what, text) => {
      using box = await withGood("gz");
      writeFileSync(join(box.work, "guest.env"), text);
      for (const command of ["backup", "run"])
        expectError(await box.vm([command]), 78, /cannot use the settings in/);
      const shown = await box.vm(["status", "--json"]);
      expect(shown.status).toBe(78);
      expect(JSON.parse(shown.stdout)).toMatchObject({ state: "broken" });
      const { stderr } = await box.vm(["backup"]);
      await shell(/: (cp [^;]+);/.exec(stderr)![1]!, box.host);
      await box.ok(["backup"]);
    });

    test("every command that needs the parent detects another VM's snapshot in its place (74)", async () => {
      using box = await withGood("qcow2");
      using other = await withGood("qcow2");
      expect(JSON.parse(box.read("backups/good2/manifest.json"))).toMatchObject({
        parent: "good1",
        parentId: JSON.parse(box.read("backups/good1/manifest.json")).id,
      });
      await box.ok(["restore", "good2"]);
      renameSync(box.path("backups/good1"), box.path("aside"));
      cpSync(other.path("backups/good1"), box.path("backups/good1"), { recursive: true });
      const another = /parent \W*good1\W* is another snapshot than the one it was made on/;
      for (const words of [
        ["restore", "good2"],
        ["restore", "--copy", "good2"],
        ["snapshots", "rm", "--merge", "good1"],
      ])
        expectError(await box.vm(words), 74, another);
      const verified = await box.vm(["verify", "good2"]);
      expect(verified.status).toBe(74);
      expect(verified.stdout).toMatch(another);
      rmSync(box.path("backups/good1"), { recursive: true });
      renameSync(box.path("aside"), box.path("backups/good1"));
      await box.ok(["verify", "--all"]);
      // The working disk records the snapshot it is an overlay on.
      renameSync(box.path("backups/good2"), box.path("aside"));
      cpSync(other.path("backups/good2"), box.path("backups/good2"), { recursive: true });
      for (const command of ["backup", "run"])
        expectError(await box.vm([command]), 74, /good2, backing file of the disk .*, is another snapshot/);
    });

    test("a merge keeps records of the child valid", async () => {
      using box = await withGood("qcow2");
      await box.ok(["backup", "good3"]);
      await box.ok(["restore", "good2"]);
      await box.ok(["snapshots", "rm", "--merge", "good1"]);
      await box.ok(["verify", "--all"]);
      const manifest = JSON.parse(box.read("backups/good2/manifest.json")) as Record<string, unknown>;
      expect(manifest).toMatchObject({ formerSums: [expect.stringMatching(/^[0-9a-f]{64}$/)] });
      expect(manifest).not.toHaveProperty("parent");
      expect(manifest).not.toHaveProperty("parentId");
      expect(manifest).not.toHaveProperty("parentSum");
      await box.ok(["@backup", "next", "@restore", "good3"]);
      await box.ok(["snapshots", "rm", "--merge", "good2"]);
      await box.ok(["@verify", "--all", "@backup"]);
    });

    test("a snapshot of an earlier version is readable, and identified by name only", async () => {
      using box = await withGood("qcow2");
      const {
        parentId: _id,
        parentSum: _sum,
        ...manifest
      } = JSON.parse(box.read("backups/good2/manifest.json")) as Record<string, unknown>;
      writeFileSync(box.path("backups/good2/manifest.json"), JSON.stringify(manifest));
      await shell("sha256sum $(awk '{print $2}' SHA256SUMS) > S; mv S SHA256SUMS", box.path("backups/good2"));
      const { stdout } = await box.ok(["verify", "good2"]);
      expect(stdout).toContain(
        "note: its parent good1 is recorded by name only (created by an earlier version)",
      );
      await box.ok(["restore", "good2"]);
    });

    test("ignores other directories in backups", async () => {
      using box = await withGood("gz");
      mkdirSync(box.path("backups/lost+found"), { mode: 0o700 });
      mkdirSync(box.path("backups/notes"));
      writeFileSync(box.path("backups/notes/README"), "mine");
      expect((await box.ok(["snapshots"])).stdout).not.toMatch(/lost|notes/);
      await box.ok(["verify", "--all"]);
      expect((await box.ok(["prune", "--keep-last=1"])).stderr).not.toContain("damaged");
      expectError(await box.vm(["snapshots", "rm", "lost+found"]), 66, /no such snapshot/);
      expectError(await box.vm(["backup", "notes"]), 73, /notes exists already, and is no snapshot/);
      expect(JSON.parse((await box.ok(["status", "--json"])).stdout)).toMatchObject({
        snapshots: { count: 1 },
      });
      expect(names(box.path("backups"))).toEqual(["LAST", "good2", "lost+found", "notes"]);
    });

    test("unmounted backups: every command reports it (74), none that there are no snapshots", async () => {
      using box = await withGood("gz");
      renameSync(box.path("backups"), join(box.top, "disk"));
      symlinkSync(join(box.top, "disk"), box.path("backups"));
      await box.ok(["@snapshots", "@verify", "@backup"]);
      renameSync(join(box.top, "disk"), join(box.top, "elsewhere"));
      const why = /backups is a symbolic link to .*\/disk, which does not exist/;
      for (const words of [
        ["snapshots"],
        ["snapshots", "rm", "good1"],
        ["verify", "--all"],
        ["snapshots", "diff", "good1", "good1"],
        ["snapshots", "ls", "good1"],
        ["prune", "--keep-last=1"],
        ["backup"],
        ["restore"],
      ])
        expectError(await box.vm(words), 74, why);
      const shown = await box.vm(["status", "--json"]);
      expect(shown.status).toBe(74);
      const status = JSON.parse(shown.stdout) as Record<string, unknown>;
      expect(status).toMatchObject({ state: "created", error: expect.stringMatching(why) });
      expect(status).not.toHaveProperty("snapshots");
      expect((await box.ok(["destroy"])).stderr).not.toContain("no snapshot:");
      expect(readlinkSync(box.path("backups"))).toBe(join(box.top, "disk"));
    });

    test("warns of internal snapshots that a backup does not include", async () => {
      using box = smallSandbox();
      await box.ok(["create", "G"]);
      await shell("qemu-img snapshot -c one disk-0.img && qemu-img snapshot -c two disk-0.img", box.work);
      const lost = /warning: disk-0\.img has 2 internal snapshots .* does not include/;
      expect((await box.ok(["backup", "--format=qcow2", "Q"])).stderr).toMatch(lost);
      expect((await box.ok(["backup", "--format=gz", "G"])).stderr).not.toMatch(/internal/);
      await box.ok(["restore", "G"]);
      expect(await shell("qemu-img snapshot -l disk-0.img", box.work)).toContain("two");
      await box.ok(["restore", "Q"]);
      await shell("qemu-img snapshot -c three disk-0.img", box.work);
      expect((await box.ok(["backup", "--format=gz"])).stderr).toMatch(
        /has 1 internal snapshot .* does not include/,
      );
    });

    test("names named pipes, devices and symlinks in a snapshot, without waiting for them", async () => {
      using box = await withGood("gz");
      await box.ok(["backup", "good3"]);
      const seconds = { timeoutSeconds: 60 };
      for (const [index, file] of [
        "guest.env",
        "TS",
        "manifest.json",
        "SHA256SUMS",
        "disk-0.img.gz",
      ].entries()) {
        const path = box.path("backups/good1", file);
        renameSync(path, box.path("aside"));
        await shell(["mkfifo", "ln -s /dev/zero"][index % 2]! + ` '${path}'`, box.host);
        for (const words of [
          ["verify", "good1"],
          ["restore", "good1"],
        ])
          expect((await box.vm(words, seconds)).status).toBe(74);
        expect((await box.vm(["prune", "--keep-last=9"], seconds)).stderr).toContain(
          "keeping good1: it is damaged",
        );
        await box.ok(["snapshots"], seconds);
        rmSync(path);
        renameSync(box.path("aside"), path);
      }
      copyFileSync(box.path("backups/good1/SHA256SUMS"), box.path("aside"));
      for (const name of ["/dev/zero", "../../../etc/passwd", ".."]) {
        const line = `${"0".repeat(64)}  ${name}\n`;
        writeFileSync(box.path("backups/good1/SHA256SUMS"), box.read("aside") + line);
        const { status, stdout } = await box.vm(["verify", "good1"], seconds);
        expect({ status, stdout }).toMatchObject({
          status: 74,
          stdout: expect.stringContaining("not a line of sha256sum"),
        });
      }
      expect(existsSync(box.path("backups/good2"))).toBe(true);
    });

    test("a huge, almost empty disk costs only its data", async () => {
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=128G)\n");
      await box.ok(["create", "G"]);
      await shell("qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 20G 64k' disk-0.img", box.work);
      await box.ok(["backup", "--format=qcow2", "Q"]);
      const kib = Number((await shell("du -k disk-0.qcow2", box.path("backups/Q"))).split("\t")[0]);
      expect(kib).toBeLessThan(2000);
      await box.ok(["restore", "--copy"]);
      await shell(
        "qemu-io -f qcow2 -c 'read -P 1 0 64k' -c 'read -P 2 20G 64k' -c 'read -P 0 9G 1M' disk-0.img",
        box.work,
      );
    });
  },
  ["qemu-io", "sha256sum", "mkfifo", "awk"],
);
