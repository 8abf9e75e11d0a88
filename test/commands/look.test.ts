/** `run --from`: test/e2e/from.test.ts has the same with guests. */
import { join } from "node:path";
import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { Sandbox } from "../fixtures/sandbox.ts";

async function withSnapshot(format = "qcow2"): Promise<Sandbox> {
  const box = new Sandbox(
    `PORT=\nDISKS=(AHCI=1M)\nFORWARDS=hostfwd=tcp::2222-:22\nSNAPSHOT_FORMAT=${format}\n`,
  );
  await box.ok("create", "G");
  await box.ok("backup", "S0");
  return box;
}

const temporary = (box: Sandbox): string[] =>
  readdirSync(box.tmp).filter((name) => name.endsWith(".temporary"));

test.each(["qcow2", "gz"])(
  "boots %s without shares, forwards or a network, and keeps nothing",
  async (format) => {
    using box = await withSnapshot(format);
    const before = await box.json("status");
    const { command, qemu } = await box.following("run", "--from=S0");
    const argv = qemu.argv.join(" ");
    expect(argv).toContain("restrict=on");
    expect(argv).not.toMatch(/hostfwd|9p|fsdev/);
    expect(argv).toContain(join(temporary(box)[0]!, "work", "disk-0.img"));
    // Another command leaves it alone; the lock is free.
    await box.ok("backup", "S1");
    expect(temporary(box)).toHaveLength(1);
    qemu.end("guest-shutdown");
    expect(await command).toMatchObject({
      status: 0,
      stderr: expect.stringContaining("nothing of this run of S0"),
    });
    expect(temporary(box)).toEqual([]);
    expect(await box.json("status")).toMatchObject({ state: before.state, lastEnd: before.lastEnd });
  },
);

test("--net= connects it, with a warning about the same addresses", async () => {
  using box = await withSnapshot();
  const { command, qemu } = await box.following("--net=user", "run", "--from=LAST");
  expect(qemu.argv.join(" ")).not.toContain("restrict=on");
  qemu.end("guest-panic");
  expect(await command).toMatchObject({
    status: 74,
    stderr: expect.stringMatching(/UUID and MAC[\s\S]*panic/),
  });
  expect(temporary(box)).toEqual([]);
});

test.each([["--detach"], ["--ssh"], ["--boot"], ["some.iso"]])("takes no %s", async (word) => {
  using box = await withSnapshot();
  expect(await box.vm("run", "--from=S0", word)).toMatchObject({
    status: 64,
    stderr: expect.stringMatching(/--from and --from-remote take no (--|a CD image)/),
  });
});

test("a missing or damaged snapshot, and a host without FUSE", async () => {
  using box = await withSnapshot();
  expect(await box.vm("run", "--from=S7")).toMatchObject({ status: 66 });
  expect(await box.vm("run", "--from=../S0")).toMatchObject({ status: 64 });
  box.write("backups/S0/manifest.json", "{}");
  expect((await box.vm("run", "--from=S0")).status).toBe(74);
  box.without("fusermount3", "fusermount");
  expect(await box.vm("run", "--from-remote")).toMatchObject({
    status: 69,
    stderr: expect.stringContaining("install fuse3"),
  });
  expect(temporary(box)).toEqual([]);
  expect(existsSync(box.path("backups/S0"))).toBe(true);
});
