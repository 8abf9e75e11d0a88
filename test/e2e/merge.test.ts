/** `snapshots rm --merge`: a removed snapshot's data is in its children. */
import { expect, test } from "bun:test";
import type { Sandbox } from "./harness.ts";
import { content, filled, manifest, write } from "./images.ts";
import { configure, expectError, listing, mode, names, seed, suite } from "./tools.ts";

const image = (box: Sandbox, name: string): string => box.path("backups", name, "disk-0.qcow2");

/** Snapshots A, B …, each with its own changes: overwritten, discarded, new, and rewritten unchanged. */
async function chain(box: Sandbox, all: readonly string[]): Promise<Map<string, string>> {
  const was = new Map<string, string>();
  for (const [at, name] of all.entries()) {
    await write(
      box,
      `write -P ${at + 2} ${at * 4}M 6M`,
      `discard ${at * 2 + 6}M 1M`,
      `write -P ${at + 9} ${40 + at}M 64k`,
      "write -P 1 1M 1M",
    );
    await box.ok(["backup", name, `the ${name}`]);
    was.set(name, await content(box));
  }
  return was;
}

async function expectAll(box: Sandbox, was: Map<string, string>): Promise<void> {
  await box.ok(["verify", "--all"]);
  expect(names(box.path("backups"))).toEqual(["LAST", ...was.keys()].toSorted());
  for (const [name, sum] of was) expect(await content(box, image(box, name))).toBe(sum);
}

suite("snapshots rm --merge", () => {
  test("of a chain: the first, one in the middle, two at once; the others are unchanged", async () => {
    using box = await filled();
    const was = await chain(box, ["A", "B", "C", "D", "E"]);
    const merge = async (heir: string | undefined, ...gone: string[]) => {
      await box.ok(["snapshots", "rm", "--merge", ...gone]);
      for (const name of gone) was.delete(name);
      if (heir !== undefined) expect(await content(box, image(box, heir))).toBe(was.get(heir)!);
    };
    await merge("B", "A");
    expect(manifest(box, "B").parent).toBeUndefined();
    expect((await box.ok(["snapshots", "show", "B"])).stdout).toContain("the B");
    expect(mode(image(box, "B"))).toBe("400");
    await merge("D", "C");
    expect(manifest(box, "D").parent).toBe("B");
    // The working disk's bitmap stays valid.
    await box.ok(["backup", "F"]);
    expect(manifest(box, "F").parent).toBe("E");
    was.set("F", was.get("E")!);
    await merge(undefined, "D", "E");
    await expectAll(box, was);
    expect(manifest(box, "F").parent).toBe("B");
    // One without children is removed as without --merge.
    await merge(undefined, "F");
    await box.ok(["restore"]);
    expect(await content(box)).toBe(was.get("B")!);
  });

  test("prune merges by default: rules apply within a chain, and kept data is not lost", async () => {
    using box = await filled();
    const was = await chain(box, ["A", "B", "C", "D"]);
    await box.ok(["snapshots", "protect", "B"]);
    const before = listing(box.path("backups"));
    const planned =
      "merge A  into B\nkeep B  protected, D builds on it\nmerge C  into D\nkeep D  last, LAST\n";
    expect((await box.ok(["prune", "--keep-last=1", "--dry-run"])).stdout).toBe(planned);
    const { stdout } = await box.ok(["prune", "--keep-last=1", "--dry-run", "--no-merge"]);
    expect(stdout).toStartWith("keep A  B builds on it\nkeep B  protected, C builds on it\nkeep C  D builds");
    expect(listing(box.path("backups"))).toEqual(before);
    const done = await box.ok(["prune", "--keep-last=1"]);
    expect(done.stdout).toBe(planned);
    expect(done.stderr).toMatch(/removed 2 of 4 snapshots: \d/);
    for (const name of ["A", "C"]) was.delete(name);
    expect([manifest(box, "B").parent, manifest(box, "D").parent]).toEqual([undefined, "B"]);
    // After a backup, which is still incremental.
    configure(box, "MEMORY=64M\nPORT=\nSNAPSHOT_FORMAT=qcow2\nKEEP_LAST=1\n");
    await write(box, "write -P 7 50M 1M");
    await box.ok(["backup", "E", "--prune"]);
    was.delete("D");
    was.set("E", await content(box));
    expect(manifest(box, "E").parent).toBe("B");
    await expectAll(box, was);
  });

  test("each of several children, a protected one too, gets the data", async () => {
    using box = await filled();
    const was = await chain(box, ["A", `it's 1, "odd":=ё`]);
    await box.ok(["restore", "A"]);
    for (const [name, sum] of await chain(box, ["C"])) was.set(name, sum);
    expect(manifest(box, "C").parent).toBe("A");
    await box.ok(["restore", "C"]);
    await box.ok(["snapshots", "protect", "C"]);
    await box.ok(["snapshots", "rm", "--merge", "A"]);
    was.delete("A");
    await expectAll(box, was);
    expect((await box.ok(["snapshots", "show", "C"])).stdout).toMatch(/protected/);
    // The working disk's backing file was replaced.
    expect(await content(box)).toBe(was.get("C")!);
  });

  test("refuses, without changes: protected, a working disk's parent, damaged, unknown", async () => {
    using box = await filled();
    const was = await chain(box, ["A", "B"]);
    await box.ok(["snapshots", "protect", "A"]);
    expectError(await box.vm(["snapshots", "rm", "--merge", "A"]), 75, /A is protected/);
    await box.ok(["@snapshots", "unprotect", "A", "@restore", "A"]);
    expectError(await box.vm(["snapshots", "rm", "--merge", "A"]), 75, /the working disk disk-0\.img/);
    expectError(await box.vm(["snapshots", "rm", "--merge", "A", "X"]), 66, /no such snapshot: X/);
    await expectAll(box, was);
    await box.ok(["restore", "B", "--copy"]);
    await Bun.spawn(["truncate", "-s", "-1", image(box, "A")]).exited;
    expectError(await box.vm(["snapshots", "rm", "--merge", "A"]), 74, /damaged/);
    expect(names(box.path("backups"))).toEqual(["A", "B", "LAST"]);
  });

  test("killed at any time: nothing is lost, and the next command cleans up", async () => {
    using box = await filled();
    const was = await chain(box, ["A", "B", "C"]);
    let gone = ["A", "B"];
    // Other times each day; `scripts/soak images` tries many.
    for (let wait = 40 + (seed % 16) * 20; gone.length > 0 && wait < 6000; wait += 320) {
      const child = box.start(["snapshots", "rm", "--merge", ...gone]);
      await Promise.race([Bun.sleep(wait), child.done]);
      child.kill("SIGKILL");
      await child.done;
      await box.ok(["snapshots", "describe", "C", "still here"]);
      const left = names(box.path("backups")).filter((name) => was.has(name));
      expect(left).toContain("C");
      await box.ok(["verify", "--all"]);
      for (const name of left) expect(await content(box, image(box, name))).toBe(was.get(name)!);
      gone = gone.filter((name) => left.includes(name));
    }
    expect(names(box.path("backups"))).toEqual(["C", "LAST"]);
  });
});
