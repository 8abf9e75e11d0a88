/** Damaged snapshot data must not be stored again with valid checksums. No guest runs long. */
import { expect, test } from "bun:test";
import { cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { Sandbox } from "./harness.ts";
import { write } from "./images.ts";
import { configure, expectError, listing, names, suite } from "./tools.ts";

const IMAGE = "disk-0.qcow2";

/** A VM with Q0, Q1 on it, and a working disk on Q1. */
async function withChain(): Promise<Sandbox> {
  const box = new Sandbox();
  configure(box, "MEMORY=64M\nCORES=1\nPORT=\nDISPLAY=none\nDISKS=(VIRT=64M)\nSNAPSHOT_FORMAT=qcow2\n");
  await box.ok(["create", "G"]);
  await write(box, "write -P 1 0 4M");
  await box.ok(["backup", "Q0"]);
  await write(box, "write -P 2 8M 4M");
  await box.ok(["backup", "Q1"]);
  await box.ok(["restore", "Q1"]);
  return box;
}

/** Changes a byte of the data, not of the tables. @returns undoes it */
function flip(path: string): () => void {
  const whole = readFileSync(path);
  const bytes = Buffer.from(whole);
  bytes[bytes.length - 100]! ^= 1;
  rmSync(path);
  writeFileSync(path, bytes, { mode: 0o400 });
  return () => {
    rmSync(path);
    writeFileSync(path, whole, { mode: 0o400 });
  };
}

suite("a damaged parent:", () => {
  test("data with a wrong checksum is neither merged, copied nor backed up (74)", async () => {
    using box = await withChain();
    const image = (name: string): string => box.path("backups", name, IMAGE);
    for (const name of ["Q0", "Q1"]) {
      const mend = flip(image(name));
      const now = (): string[][] => [listing(box.path("backups")), listing(box.work)];
      const before = now();
      const wrong = `${name} is damaged: disk-0\\.qcow2: its checksum is wrong`;
      for (const [words, cannot] of [
        [["snapshots", "rm", "--merge", "Q0"], "cannot merge into Q1: "],
        [["restore", "--copy", "Q1"], "cannot restore Q1: "],
        [["backup", "--format=gz", "bad"], "cannot back up: "],
      ] as const)
        expectError(await box.vm([...words]), 74, new RegExp(cannot + wrong));
      expect(now()).toEqual(before);
      // qemu opens the working disk first, and rewrites its bitmaps.
      expectError(await box.vm(["backup", "--full", "bad"]), 74, new RegExp(`cannot back up: ${wrong}`));
      expect(now()[0]).toEqual(before[0]!);
      mend();
    }
    await box.ok(["@backup", "--full", "good", "@restore", "--copy", "Q1"]);
    await box.ok(["@snapshots", "rm", "--merge", "Q0", "@verify", "--all"]);
  });

  test("a header with another parent than the manifest: damaged (74), not a missing parent", async () => {
    using box = await withChain();
    const path = box.path("backups/Q1", IMAGE);
    const bytes = readFileSync(path);
    bytes[bytes.indexOf("../Q0/") + 4]! ^= 0x40;
    rmSync(path);
    writeFileSync(path, bytes, { mode: 0o400 });
    expectError(
      await box.vm(["restore", "Q1"]),
      74,
      /Q1 is damaged: disk-0\.qcow2 refers to the backing file /,
    );
  });

  test("a working disk is not used if a quick check finds its parent damaged (74)", async () => {
    using box = await withChain();
    const path = box.path("backups/Q0", IMAGE);
    const whole = readFileSync(path);
    truncateSync(path, whole.length - 4096);
    const below =
      /the snapshot Q1, backing file of the disk .*, is damaged: its parent Q0 .*disk-0\.qcow2 has \d+ bytes/;
    for (const words of [["run", "--detach"], ["backup"], ["backup", "--format=gz"]])
      expectError(await box.vm(words), 74, below);
    expect(names(box.path("backups"))).toEqual(["LAST", "Q0", "Q1"]);
    rmSync(path);
    writeFileSync(path, whole);
    // Files that the disk does not need do not prevent its use.
    rmSync(box.path("backups/Q0/guest.env"));
    await box.ok(["run", "--detach"]);
    renameSync(path, box.path("aside"));
    writeFileSync(path, whole.subarray(0, -4096));
    expectError(await box.vm(["backup"]), 74, below);
    rmSync(path);
    renameSync(box.path("aside"), path);
    await box.ok(["@backup", "@stop", "--force"]);
  });

  test("a snapshot of another VM is restored only by its name (74)", async () => {
    using box = await withChain();
    using other = await withChain();
    rmSync(box.path("backups"), { recursive: true });
    cpSync(other.path("backups"), box.path("backups"), { recursive: true, verbatimSymlinks: true });
    const before = listing(box.work);
    const another = /Q1 is a snapshot of another VM \(UUID [0-9a-f-]{36}, not [0-9a-f-]{36}\)/;
    for (const words of [["restore"], ["restore", "LAST"]]) expectError(await box.vm(words), 74, another);
    expect(listing(box.work)).toEqual(before);
    expect((await box.ok(["verify", "Q1"])).stdout).toMatch(/note: it is of another VM \(UUID/);
    expect((await box.ok(["restore", "Q1"])).stderr).toMatch(another);
    await box.ok(["destroy"]);
    expectError(await box.vm(["run"]), 74, another);
  });

  test("prune, restore and verify agree on a missing file", async () => {
    using box = await withChain();
    rmSync(box.path("backups/Q1/TS"));
    expect((await box.ok(["prune", "--keep-last=1", "--dry-run"])).stdout).toMatch(/^keep Q0 /m);
    expectError(await box.vm(["restore", "Q1"]), 74, /TS is missing/);
    expect((await box.vm(["verify", "Q1"])).status).toBe(74);
    await box.ok(["@backup", "Q2", "@backup", "Q3"]);
    writeFileSync(
      box.path("backups/Q3/SHA256SUMS"),
      `${box.read("backups/Q3/SHA256SUMS")}${"0".repeat(64)}  efivars.img\n`,
    );
    const missing = /efivars\.img is missing/;
    expect((await box.ok(["prune", "--keep-last=1", "--dry-run"])).stderr).toMatch(missing);
    expectError(await box.vm(["restore", "Q3"]), 74, missing);
    await box.ok(["restore", "Q2"]);
  });
});
