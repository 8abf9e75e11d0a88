/** Listing, protection and removal of snapshots. No guest runs. */
import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readlinkSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SnapshotFacts } from "../../src/store/snapshot-info.ts";
import type { Sandbox } from "./harness.ts";
import { configure, expectError, listing, names, seed, shell, smallSandbox, suite } from "./tools.ts";

/** A VM with snapshots of these names, the last one newest. */
async function withSnapshots(...wanted: string[]): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok(["@create", "G", ...wanted.flatMap((name) => ["@backup", name])]);
  return box;
}

const backups = (box: Sandbox): string[] => names(box.path("backups"));
const last = (box: Sandbox): string => readlinkSync(box.path("backups/LAST"));

async function facts(box: Sandbox): Promise<SnapshotFacts[]> {
  return JSON.parse((await box.ok(["snapshots", "--json"])).stdout) as SnapshotFacts[];
}

const sumOf = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Changes a manifest, and its checksum. */
function note(box: Sandbox, name: string, change: object): void {
  const before = box.read("backups", name, "manifest.json");
  const after = JSON.stringify({ ...JSON.parse(before), ...change });
  writeFileSync(box.path("backups", name, "manifest.json"), after);
  const sums = box.read("backups", name, "SHA256SUMS");
  writeFileSync(box.path("backups", name, "SHA256SUMS"), sums.replace(sumOf(before), sumOf(after)));
}

const sumsPass = (box: Sandbox, name: string): Promise<string> =>
  shell("sha256sum --strict --quiet -c SHA256SUMS", box.path("backups", name));

/** Other times each day; `scripts/soak` tries all. */

suite(
  "snapshots, listed and removed",
  () => {
    test("lists all, oldest first; a damaged one with its problem", async () => {
      using box = await withSnapshots("one", "two", "three");
      await box.ok(["snapshots", "describe", "two", "before the update"]);
      await box.ok(["snapshots", "protect", "one"]);
      truncateSync(box.path("backups/two/disk-0.img.gz"), 3);
      const all = await facts(box);
      expect(all.map(({ name }) => name)).toEqual(["one", "two", "three"]);
      expect(all[0]).toMatchObject({
        protected: true,
        last: false,
        format: "gz",
        guestBytes: 16 << 20,
        problem: null,
      });
      expect(all[1]).toMatchObject({ description: "before the update", consistency: "offline" });
      expect(all[1]!.problem).toContain("disk-0.img.gz has 3 bytes instead of");
      expect(all[2]).toMatchObject({ last: true, parent: null, problem: null });
      const { stdout } = await box.ok(["snapshots"]);
      expect(stdout).toMatch(/^NAME +TIME/);
      expect(stdout).toMatch(/^two .* damaged .*before the update$/m);
      expect(stdout).toMatch(/^two: disk-0/m);
      writeFileSync(box.path("backups/three/manifest.json"), "{");
      expect((await facts(box)).find(({ name }) => name === "three")?.problem).toContain(
        "manifest is incomplete",
      );
      const shown = await box.ok(["snapshots", "show", "one", "LAST"]);
      expect(shown.stdout).toMatch(/^file: +disk-0\.img\.gz: .*with a checksum$/m);
      expect(shown.stdout).toMatch(/^name: +three$/m);
    });

    test("no snapshots: an empty list; usage errors", async () => {
      using box = smallSandbox();
      expectError(await box.vm(["snapshots"]), 66, /there is no VM in/);
      box.write("guest.env", 'GUESTNAME="G"\n');
      const none = await box.ok(["snapshots"]);
      expect(none.stdout).toBe("");
      expect(none.stderr).toMatch(/has no snapshots; create one: vm backup\n$/);
      expect(await facts(box)).toEqual([]);
      for (const words of [
        ["shw"],
        ["rm"],
        ["describe", "a"],
        ["list", "x"],
        ["rm", "../x"],
        ["protect", "--json", "x"],
      ])
        expectError(await box.vm(["snapshots", ...words]), 64, /snapshot/);
      expectError(await box.vm(["snapshots", "--merge", "rm", "x"]), 66, /no such snapshot/);
      expectError(await box.vm(["snapshots", "rm", "x"]), 66, /no such snapshot/);
    });

    test("rm: LAST is updated; protected ones, parents and those of disks are kept", async () => {
      using box = await withSnapshots("a", "b", "c");
      await box.ok(["snapshots", "protect", "a"]);
      expectError(await box.vm(["snapshots", "rm", "c", "a"]), 75, /a is protected/);
      expect(backups(box)).toEqual(["LAST", "a", "b", "c"]);
      await box.ok(["snapshots", "unprotect", "a"]);
      note(box, "b", { format: "qcow2", parent: "a" });
      expectError(await box.vm(["snapshots", "rm", "a"]), 75, /b builds on a/);
      const disk = join(box.work, "disk-0.img");
      rmSync(disk);
      await shell(
        "qemu-img create -q -u -f qcow2 -F qcow2 -b .host/backups/b/disk-0.img disk-0.img 16M",
        box.work,
      );
      expectError(
        await box.vm(["snapshots", "rm", "a", "b"]),
        75,
        /the working disk disk-0\.img builds on b/,
      );
      await box.ok(["snapshots", "rm", "c"]);
      expect(last(box)).toBe("b");
      rmSync(disk);
      await box.ok(["snapshots", "rm", "a", "b"]);
      expect(backups(box)).toEqual([]);
    });

    test("describe keeps the checksums valid, whatever the text", async () => {
      using box = await withSnapshots("a");
      for (const text of ["новое $(x) `y`", "two\nlines", " "]) {
        await box.ok(["snapshots", "describe", "a", "--", text]);
        expect((await facts(box))[0]!.description).toBe(text.trim());
        await sumsPass(box, "a");
      }
      expect(box.read("backups/a/SHA256SUMS")).toContain("  DESCRIPTION\n");
    });

    test("prune: prints its actions, changes nothing in a dry run, and needs a rule", async () => {
      using box = await withSnapshots("a", "b", "c", "d");
      const before = listing(box.host);
      expectError(await box.vm(["prune"]), 64, /no retention rules given/);
      expectError(await box.vm(["prune", "--keep-last=0"]), 64, /0 is no retention rule/);
      expectError(await box.vm(["prune", "--keep-last=x"]), 64, /--keep-last: 'x' is not allowed/);
      expect((await box.ok(["prune", "--keep-last=1", "--dry-run"])).stdout).toBe(
        "remove a\nremove b\nremove c\nkeep d  last, LAST\n",
      );
      expect(listing(box.host)).toEqual(before);
      note(box, "d", { format: "qcow2", parent: "b" });
      writeFileSync(box.path("backups/c/manifest.json"), "{");
      const { stdout, stderr } = await box.ok(["prune", "--keep-last=1", "--json"]);
      // The damaged one has only whole seconds.
      const verdicts = JSON.parse(stdout) as { name: string }[];
      expect(verdicts.toSorted((a, b) => (a.name < b.name ? -1 : 1))).toMatchObject([
        { name: "a", action: "remove", reasons: [] },
        { name: "b", action: "keep", reasons: ["last", "d builds on it"] },
        { name: "c", action: "keep", reasons: ["damaged"] },
        { name: "d", action: "keep", reasons: ["LAST", "damaged"] },
      ]);
      expect(stderr).toContain("keeping c: it is damaged: its manifest is incomplete");
      expect(stderr).toContain('keeping d: it is damaged: its parent "b" is no qcow2 snapshot');
      expect(backups(box)).toEqual(["LAST", "b", "c", "d"]);
    });

    test("keeps one in the future, reports it, and does not count it", async () => {
      using box = await withSnapshots("a", "b");
      note(box, "a", { made: "2126-01-01T00:00:00.000Z" });
      const { stdout, stderr } = await box.ok(["prune", "--keep-last=1", "--dry-run"]);
      expect(stdout).toBe("keep b  last, LAST\nkeep a  in the future\n");
      expect(stderr).toContain("a has a timestamp in the future (2126-");
    });

    test("backup --prune follows the settings, after the backup", async () => {
      using box = await withSnapshots("a", "b", "c");
      expectError(await box.vm(["backup", "--prune", "d"]), 64, /no retention rules/);
      expect(existsSync(box.path("backups/d"))).toBe(false);
      configure(box, "MEMORY=64M\nPORT=\nKEEP_LAST=2\n");
      await box.ok(["backup", "--prune", "d"]);
      expect(backups(box)).toEqual(["LAST", "c", "d"]);
      expect(last(box)).toBe("d");
      expectError(await box.vm(["backup", "--prune", "d"]), 73, /exists already/);
      expect(backups(box)).toEqual(["LAST", "c", "d"]);
    });

    test.each([
      ["rm", ["snapshots", "rm", "c", "d"], ["a", "b"]],
      ["prune", ["prune", "--keep-last=1"], ["d"]],
      ["describe", ["snapshots", "describe", "d", "other"], ["a", "b", "c", "d"]],
    ])(
      "%s killed at any time leaves complete snapshots, and the next command cleans up",
      async (_name, words, after) => {
        using box = await withSnapshots("a", "b", "c", "d");
        await shell("cp -a backups kept", box.host);
        let killed = 0;
        for (const call of ["rename", "unlink,unlinkat,rmdir", "fsync", "openat"])
          for (let when = 1 + (seed % 3); when <= 40; when += call === "openat" ? 14 : 3) {
            rmSync(box.path("backups"), { recursive: true });
            await shell("cp -a kept backups", box.host);
            const program = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", `trace=${call}`];
            const inject = [
              "-e",
              `inject=${call}:signal=KILL:when=${when}`,
              "--",
              process.env.VM_BINARY ?? "dist/vm",
            ];
            const result = await box.vm(words, { program: [...program, ...inject] });
            const now = backups(box).filter((name) => !name.startsWith(".") && name !== "LAST");
            for (const name of after) expect(now).toContain(name);
            for (const name of now) await sumsPass(box, name);
            if (existsSync(box.path("backups", "LAST"))) expect(now).toContain(last(box));
            // Snapshots listed meanwhile are complete.
            for (const { problem } of await facts(box)) expect(problem).toBeNull();
            await box.ok(words[1] === "rm" ? ["snapshots", "protect", "a"] : words);
            expect(backups(box).filter((name) => name.startsWith("."))).toEqual([]);
            if (words[1] !== "rm") expect(backups(box)).toEqual(["LAST", ...after]);
            if (result.status === 0) break;
            killed++;
          }
        expect(killed).toBeGreaterThan(3);
      },
    );

    test("a dangling LAST is harmless", async () => {
      using box = await withSnapshots("a");
      rmSync(box.path("backups/LAST"));
      symlinkSync("gone", box.path("backups/LAST"));
      expect((await facts(box))[0]).toMatchObject({ name: "a", last: false });
      await box.ok(["snapshots", "rm", "a"]);
    });
  },
  ["strace", "sha256sum"],
);
