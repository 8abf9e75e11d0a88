/** Clones, templates, and what needs a snapshot. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readSeed } from "../../src/vm/seed-volume.ts";
import { type Sandbox } from "../fixtures/sandbox.ts";
import { buildChain, addRepository, buildOnce, seen, written } from "./snapshots.ts";

const source = (conf = ""): Promise<Sandbox> => buildChain("clone", conf);

const place = (box: Sandbox, name: string): string => join(box.top, name);
const at = async <T = any>(box: Sandbox, name: string, ...words: string[]): Promise<T> =>
  box.json("-d", place(box, name), ...words);
const brokenAt = async (box: Sandbox, name: string): Promise<any> =>
  box.jsonEnds(74, "-d", place(box, name), "status");
/** What a guest of the clone reads. */
const bytes = (box: Sandbox, name: string): number[] => seen(box, join(place(box, name), ".work/disk-0.img"));
const guestEnv = (box: Sandbox, name: string): string =>
  readFileSync(join(place(box, name), ".work/guest.env"), "utf8");
/** Working directories, without that of the VM itself. */
const left = (box: Sandbox): string[] => readdirSync(box.tmp).filter((name) => !box.work.endsWith(name));

describe("a full clone", () => {
  let box: Sandbox;
  beforeAll(async () => {
    box = await source();
  });
  afterAll(() => box[Symbol.dispose]());

  test.each([
    [[], "off", [1, 2, 3, 4]],
    [["S0"], "gz", [1]],
    [["S2"], "qcow2", [1, 2, 3]],
    [["LAST"], "last", [1, 2, 3]],
  ])(
    "clone %j has the disks of that state, and its own name, UUID and MAC address",
    async (words, name, content) => {
      await box.ok("clone", "--keep-guest", ...words, `../${name}`);
      expect(bytes(box, name)).toEqual(content);
      const [original, clone] = [await box.json("status"), await at(box, name, "status")];
      expect(clone).toMatchObject({ name, directory: place(box, name), state: "created", template: false });
      expect(clone.clonedFrom).toMatchObject({
        directory: box.host,
        linked: false,
        uuid: expect.any(String),
      });
      expect(clone.nics[0].mac).not.toBe(original.nics[0].mac);
      expect(clone.snapshots.count).toBe(0);
      expect((await at(box, name, "identity")).former).toEqual([]);
      expect((await at(box, name, "identity")).uuid).not.toBe((await box.json("identity")).uuid);
      // It needs nothing of the original.
      expect((await box.json("status")).clones).toBeUndefined();
    },
  );

  test("is independent: its backups are its own", async () => {
    await box.ok("clone", "--keep-guest", "../own");
    await box.ok("-d", place(box, "own"), "backup", "--format=qcow2");
    expect(await at(box, "own", "snapshots")).toMatchObject([{ name: "S0", parent: null, problem: null }]);
  });

  test("of a running VM is refused, with the way by a snapshot", async () => {
    await box.running();
    await box.ends(75, "clone --keep-guest ../live", "the VM is running", "vm backup && vm clone LAST DIR");
    await box.ok("clone", "--keep-guest", "S1", "../live");
    expect(bytes(box, "live")).toEqual([1, 2]);
    await box.ok("stop", "--force");
  });
});

test("settings are taken over; names, cards' addresses and ports of the host are the clone's own", async () => {
  using box = await written();
  box.write("vm.defaults", "-device virtio-rng-pci\n");
  await box.ok(
    "set",
    "MEMORY=96M",
    "PORT=5999",
    "FORWARDS=tcp:127.0.0.1:5555-:22,udp::5555-:53",
    "NETWORKS=user,mac=02:00:00:00:00:01",
    "NETWORKS=user,link=down",
  );
  await box.ok("clone", "--keep-guest", "--count=2", "../web");
  for (const [index, name] of ["web1", "web2"].entries()) {
    const text = guestEnv(box, name);
    expect(text).toContain('MEMORY="96M"');
    expect(text).toContain(`GUESTNAME="${name}"`);
    expect(text).toContain(`PORT="${6000 + index}"`);
    const [, tcp, udp] = /^FORWARDS="hostfwd=tcp:127\.0\.0\.1:(\d+)-:22,hostfwd=udp::(\d+)-:53"$/m.exec(
      text,
    )!;
    // Behind the original's; a port that another program has is left out.
    for (const port of [tcp, udp]) expect(Number(port)).toBeGreaterThan(5555 + index);
    expect(text).not.toContain("mac=02:00:00:00:00:01");
    expect(text).toContain("user,link=down");
    expect(readFileSync(join(place(box, name), ".work/vm.defaults"), "utf8")).toContain("virtio-rng-pci");
  }
  // The ports of earlier clones are not used again, though nothing listens there.
  await box.ok("clone", "--keep-guest", "../db1");
  expect(guestEnv(box, "db1")).toContain("tcp:127.0.0.1:5558-:22");
  await box.ok("clone", "--keep-guest", "--count=1", "../db1");
  expect(existsSync(place(box, "db1-1/.work"))).toBe(true);
});

test("UEFI variables and the first boot of the CD are the VM's; its TPM only with --keep-tpm", async () => {
  using box = await written();
  // A firmware volume of this length (test/commands/machine.test.ts).
  const variables = Buffer.alloc(4096);
  variables.writeBigUInt64LE(4096n, 32);
  variables.write("_FVH", 40);
  writeFileSync(join(box.work, "efivars.bin"), variables, { mode: 0o600 });
  mkdirSync(join(box.work, ".vm-tpm"), { mode: 0o700 });
  const state = Buffer.from([2, 1, 0, 0, 0, 0, 0, 0, 0, 10]);
  writeFileSync(join(box.work, ".vm-tpm/tpm2-00.permall"), state, { mode: 0o600 });
  const files = (name: string): string[] => readdirSync(place(box, `${name}/.work/`)).toSorted();
  const own = [".host", ".in", ".out", ".vm.json", "FIRSTTIME", "disk-0.img", "efivars.bin", "guest.env"];
  await box.ok("clone", "--keep-guest", "../web");
  expect(files("web")).toEqual(own);
  expect(readFileSync(place(box, "web/.work/efivars.bin")).equals(variables)).toBe(true);
  await box.ok("clone", "--keep-guest", "--keep-tpm", "../kept");
  expect(files("kept")).toEqual([...own, ".vm-tpm"].toSorted());
  expect(readFileSync(place(box, "kept/.work/.vm-tpm/tpm2-00.permall"))).toEqual(state);
  await box.ok("backup", "S0", "--format=qcow2");
  await box.ok("clone", "--keep-guest", "--linked", "S0", "../linked");
  expect(files("linked")).toEqual([...own, ".vm-base"].toSorted());
});

describe("a linked clone", () => {
  test("is an overlay on the snapshot, which cannot be removed, merged or pruned while it exists", async () => {
    using box = await source();
    await box.ok("clone", "--keep-guest", "--linked", "S1", "../web");
    expect(bytes(box, "web")).toEqual([1, 2]);
    expect((await at(box, "web", "status")).clonedFrom).toMatchObject({ snapshot: "S1", linked: true });
    const web = place(box, "web");
    expect((await box.json("status")).clones).toMatchObject([
      { directory: web, snapshot: "S1", missing: false },
    ]);
    expect((await box.ok("status")).stdout).toContain(`linked clone:  ${web}, of S1`);
    // Not `vm restore`, which would replace the disks of this VM.
    const independent = `make a clone independent: vm -d ${web} backup && vm -d ${web} restore --copy`;
    for (const words of ["snapshots rm S2 S1", "snapshots rm --merge S1"]) {
      const { stderr } = await box.ends(75, words, `the clone ${web} builds on S1`, independent);
      expect(stderr).not.toMatch(/vm (-d \S*vm1 )?restore/);
    }
    const kept = await box.json("prune", "--dry-run", "--keep-last=1");
    expect(kept.find((item: any) => item.name === "S1").action).toBe("keep");
    expect((await box.json("snapshots", "show", "S1"))[0].dependents).toContain(`the clone ${web}`);
    // A child is merged into by another image with the same content.
    await box.ok("clone", "--keep-guest", "--linked", "S2", "../web2");
    await box.ok("-d", web, "destroy");
    await box.ok("snapshots", "rm", "--merge", "S1");
    expect(bytes(box, "web2")).toEqual([1, 2, 3]);
    await box.running({}, "-d", place(box, "web2"));
    await box.ok("-d", place(box, "web2"), "stop", "--force");
  });

  test("backs up everything, and restored with --copy needs its base no more", async () => {
    using box = await source();
    await box.ok("clone", "--keep-guest", "--linked", "S1", "../web");
    const web = place(box, "web");
    for (const format of ["gz", "qcow2"]) {
      await box.ok("-d", web, "backup", format, `--format=${format}`);
      await box.ok("-d", web, "verify", format);
    }
    await box.ok("-d", web, "restore", "--copy", "qcow2");
    expect(bytes(box, "web")).toEqual([1, 2]);
    expect((await box.json("status")).clones).toBeUndefined();
    await box.ok("snapshots", "rm", "S2", "S1");
    expect(bytes(box, "web")).toEqual([1, 2]);
  });

  test("without its base says so in status and run, and works again when that is back", async () => {
    using box = await written();
    const base = place(box, "base");
    await box.ok("clone", "--keep-guest", "../base");
    await box.ok("-d", base, "backup", "S1", "--format=qcow2");
    await box.ok("-d", base, "clone", "--keep-guest", "--linked", "S1", "../web");
    // Not beside either of them.
    const away = place(box, "far/away");
    mkdirSync(place(box, "far"));
    renameSync(base, away);
    const status = await brokenAt(box, "web");
    expect(status).toMatchObject({ state: "broken", error: expect.stringContaining("a VM that is missing") });
    await box.ends(
      66,
      ["-d", place(box, "web"), "run"],
      "needs the snapshot S1",
      "move it back",
      "vm -d NEWDIR rename NEWDIR",
    );
    mkdirSync(base);
    expect((await brokenAt(box, "web")).error).toContain(`that is no longer in ${base}`);
    rmSync(base, { recursive: true });
    symlinkSync(away, base);
    expect((await at(box, "web", "status")).state).toBe("created");
    rmSync(base);
    renameSync(away, base);
    // Another snapshot of that name is not its base.
    rmSync(join(base, "backups/S1"), { recursive: true });
    await box.ok("-d", base, "backup", "S1", "--format=qcow2");
    await box.ends(74, ["-d", place(box, "web"), "run"], "is another snapshot than the one it was made on");
    const { state, error, hint } = await brokenAt(box, "web");
    expect(state).toBe("broken");
    expect(error).toContain("is another snapshot than the one it was made on");
    expect(hint).toContain("restore another snapshot");
  });

  test("whose original was moved, and another VM is in its place: status shows where it is, of each clone", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../base");
    const [base, moved] = [place(box, "base"), place(box, "moved")];
    await box.ok("-d", base, "backup", "S1", "--format=qcow2");
    await box.ok("-d", base, "clone", "--keep-guest", "--linked", "--count=2", "S1", "../c");
    renameSync(base, moved);
    await box.ok("clone", "--keep-guest", "../base");
    await box.ok("-d", base, "backup", "S1", "--format=qcow2");
    await box.ok("-d", place(box, "c1"), "run", "--detach");
    await box.ok("-d", place(box, "c1"), "stop", "--force");
    expect((await at(box, "c1", "status")).clonedFrom).toEqual({
      directory: moved,
      uuid: expect.any(String),
      snapshot: "S1",
      linked: true,
    });
    expect(await at(box, "c2", "status")).toMatchObject({
      state: "created",
      clonedFrom: { directory: moved, movedFrom: base },
    });
    expect((await box.ok("-d", place(box, "c2"), "status")).stdout).toContain(
      `cloned from:   ${moved}, snapshot S1, linked; moved from ${base}: 'run' updates`,
    );
    await box.ok("-d", place(box, "c2"), "run", "--detach");
  });

  test("that is missing is named, and can be forgotten; one that was moved is recorded again", async () => {
    using box = await source();
    await box.ok("clone", "--keep-guest", "--linked", "--count=2", "S1", "../web");
    const [one, two] = [place(box, "web1"), place(box, "web2")];
    rmSync(one, { recursive: true });
    renameSync(two, place(box, "moved"));
    await box.ends(75, "snapshots rm S2 S1", `the missing clone ${one}`, `vm clone --forget ${one}`);
    await box.ok("-d", place(box, "moved"), "backup");
    const clones = (await box.json("status")).clones.map((item: any) => [item.directory, item.missing]);
    expect(clones.toSorted()).toEqual(
      [
        [one, true],
        [place(box, "moved"), false],
      ].toSorted(),
    );
    await box.ends(75, ["clone", "--forget", place(box, "moved")], "is a linked clone that needs S1");
    await box.ok("clone", "--forget", one);
    await box.ends(66, ["clone", "--forget", one], "no linked clone");
    await box.ok("-d", place(box, "moved"), "destroy");
    await box.ok("snapshots", "rm", "S2", "S1");
  });

  test("of a VM with its files in its directory", async () => {
    using box = await source("INPLACE=1\n");
    await box.ok("clone", "--keep-guest", "--linked", "S1", "../web");
    expect(bytes(box, "web")).toEqual([1, 2]);
    const web = place(box, "web");
    expect(existsSync(join(web, ".vm-base"))).toBe(true);
    await box.ok("-d", web, "destroy");
    expect(readdirSync(web)).toEqual(["guest.env"]);
  });

  test.each([
    ["--linked ../web", 64, "--linked needs a snapshot"],
    ["--linked S0 ../web", 64, "it is not a qcow2 snapshot"],
  ])("refuses clone %s", async (words, status, reason) => {
    using box = await source();
    await box.ends(status, `clone --keep-guest ${words}`, reason);
    expect(existsSync(place(box, "web"))).toBe(false);
  });
});

describe("refuses before any work:", () => {
  let box: Sandbox;
  beforeAll(async () => {
    box = await written();
    await box.ok("clone", "--keep-guest", "../web2");
    mkdirSync(place(box, "full/x"), { recursive: true });
    symlinkSync(place(box, "web2"), place(box, "link"));
    writeFileSync(place(box, "file"), "");
  });
  afterAll(() => box[Symbol.dispose]());

  test.each<[string[], number, string]>([
    [["../full"], 73, "is not empty"],
    [["../link"], 73, "exists already"],
    [["../file"], 73, "exists already"],
    [["--count=2", "../web"], 73, "is not empty"],
    [["../none/web"], 66, "no such directory"],
    [["inside"], 64, "is in the directory of this VM"],
    [["."], 64, "vm1-2"],
    [["none/inside"], 64, "is in the directory of this VM"],
    [["../a\nb"], 64, "'a?b' cannot be a VM's name"],
    [["../-x"], 64, "cannot be a VM's name"],
    [["../.x"], 64, "cannot be a VM's name"],
    [[`../${"x".repeat(201)}`], 64, "cannot be a VM's name"],
    [["S9", "../x"], 66, "no such snapshot: S9"],
    [["../S9", "../x"], 64, "cannot be a snapshot's name"],
    [["S0", "../x", "../y"], 64, "at most a snapshot and a directory"],
    [["--count=0", "../x"], 64, "--count"],
    [["--count=257", "../x"], 64, "--count"],
    [["--runs", "../x"], 64, "--runs"],
    [["-m", "4G", "../x"], 64, "has no effect"],
    [[], 64, "is missing"],
  ])("clone %j", async (words, status, reason) => {
    const before = readdirSync(box.top).toSorted();
    await box.ends(status, ["clone", "--keep-guest", ...words], reason);
    expect(readdirSync(box.top).toSorted()).toEqual(before);
  });

  test("a damaged disk", async () => {
    const path = join(box.work, "disk-0.img");
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, 100));
    await box.ends(74, "clone --keep-guest ../x", `cannot clone ${path}`, "no clone was made");
    writeFileSync(path, whole);
    expect(existsSync(place(box, "x"))).toBe(false);
  });

  test("a guest.env that cannot be changed", async () => {
    const path = join(box.work, "guest.env");
    const text = readFileSync(path, "utf8");
    writeFileSync(path, `${text}if true; then CORES=1; fi\n`);
    await box.ends(78, "clone --keep-guest ../x", "something other than NAME=value");
    writeFileSync(path, text);
    expect([existsSync(place(box, "x")), left(box).length]).toEqual([false, 1]);
  });
});

test("what a killed clone left in its directory is no VM, and the next one cleans it up", async () => {
  using box = await source();
  const web = place(box, "web");
  mkdirSync(join(web, ".vm-partial-work"), { recursive: true, mode: 0o700 });
  writeFileSync(join(web, ".vm-partial-work/disk-0.img"), "half");
  // As recorded before it was made.
  const uuid = crypto.randomUUID();
  const entry = { uuid, directory: web, snapshot: "S1", pending: true };
  box.write(".vm-clones.json", JSON.stringify({ version: 1, clones: [entry] }));
  await box.ends(66, ["-d", web, "status"], "there is no VM");
  await box.ok("clone", "--keep-guest", "--linked", "S1", "../web");
  expect(bytes(box, "web")).toEqual([1, 2]);
  await box.ok("-d", web, "destroy");
  await box.ok("snapshots", "rm", "S2", "S1");
});

test("a damaged record of clones keeps the snapshots", async () => {
  using box = await source();
  box.write(".vm-clones.json", "{");
  await box.ends(74, "snapshots rm S2", "the record of linked clones");
  // The VM itself is shown as it is.
  expect(await box.jsonEnds(74, "status")).toMatchObject({
    state: "created",
    error: expect.stringContaining("the record of linked clones"),
    hint: expect.stringContaining("mv "),
    snapshots: { count: 3 },
  });
});

describe("a template", () => {
  test("can be cloned, backed up and verified, but not run, restored or changed by a job", async () => {
    using box = await source();
    await box.ok("set", "TEMPLATE=yes");
    expect(await box.json("status")).toMatchObject({ template: true });
    for (const words of ["run", "restore S1", "job grow-fs", "disk resize 0 2M", "disk add 1M"])
      await box.ends(75, words, "is a template", "vm clone DIR");
    await box.ok("backup", "S3", "--format=qcow2");
    await box.ok("verify", "S3");
    await box.ok("clone", "--keep-guest", "--linked", "../web");
    expect(bytes(box, "web")).toEqual([1, 2, 3, 4]);
    expect(guestEnv(box, "web")).not.toContain("TEMPLATE");
    await box.running({}, "-d", place(box, "web"));
    await box.ok("-d", place(box, "web"), "stop", "--force");
    await box.ok("set", "TEMPLATE=no");
    await box.ok("restore", "S1");
  });

  test("stays one without its working files, as after a reboot, and restored from a snapshot", async () => {
    using box = await source();
    await box.ok("set", "TEMPLATE=yes");
    expect((await box.ok("status")).stdout).toMatch(/^state: +created \(template\)$/m);
    // The copy in HOSTDIR has not been changed by hand.
    expect((await box.json("status")).unreadSettings).toBeUndefined();
    await box.ok("destroy");
    await box.ends(75, "run", "is a template", "vm clone LAST DIR", "vm restore");
    await box.ends(66, "clone --keep-guest ../web", "has none", "vm clone LAST DIR");
    await box.ok("restore", "S1");
    expect(await box.json("status")).toMatchObject({ template: true });
    // TMPDIR is emptied.
    rmSync(box.work, { recursive: true });
    await box.ends(75, "run", "is a template");
    // Of a snapshot of then, in a directory without settings.
    await box.ok("restore");
    await box.ok("backup", "T");
    await box.ok("destroy");
    rmSync(box.path("guest.env"));
    await box.ends(75, "run", "is a template");
    await box.ok("set", "TEMPLATE=no");
    await box.ok("restore", "T");
    expect(await box.json("status")).toMatchObject({ template: false });
  });

  test("without snapshots names the command for one that linked clones can use", async () => {
    using box = await buildOnce("bare", "", async (fresh) => {
      await fresh.ok("create", "G");
    });
    await box.ok("set", "TEMPLATE=on");
    await box.ends(66, "clone --linked ../web", "has no snapshots", "vm backup --format=qcow2");
  });

  test("is not made of a running VM", async () => {
    using box = await written();
    await box.running();
    await box.ends(75, "set TEMPLATE=yes", "the VM is running");
    await box.ok("stop", "--force");
  });
});

const seedOf = (work: string) => readSeed(join(work, "vm-seed.img"));
const meta = (work: string) => JSON.parse(seedOf(work)["meta-data"].toString());

describe("cloud-init's volume", () => {
  test("gets a new instance and host name, and keeps the user-data", async () => {
    using box = await buildOnce("seeded", "", async (fresh) => {
      fresh.write(join(fresh.top, "key.pub"), "ssh-ed25519 AAAA me\n");
      fresh.configure(`SSHKEYS=(${join(fresh.top, "key.pub")})\n`);
      await fresh.ok("--net=user", "create", "--cloud-init", "G");
    });
    await box.ok("clone", "../web");
    const clone = join(place(box, "web"), ".work");
    expect(meta(box.work)["local-hostname"]).toBe("g");
    expect(meta(clone)["local-hostname"]).toBe("web");
    expect(meta(clone)["instance-id"]).not.toBe(meta(box.work)["instance-id"]);
    expect(seedOf(clone)["user-data"]).toEqual(seedOf(box.work)["user-data"]);
    const { mac } = (await at(box, "web", "status")).nics[0];
    expect(seedOf(clone)["network-config"]!.toString()).toContain(mac);
    await box.ok("clone", "--keep-guest", "../same");
    expect(meta(join(place(box, "same"), ".work"))).toEqual(meta(box.work));
  });

  test("that another program made is refused, and copied with --keep-guest", async () => {
    using box = await written();
    writeFileSync(join(box.work, "vm-seed.img"), "x".repeat(100_000), { mode: 0o600 });
    await box.ends(74, "clone ../web", "it was not made by this program", "--keep-guest");
    expect([existsSync(place(box, "web")), left(box).length]).toEqual([false, 0]);
    await box.ok("clone", "--keep-guest", "../web");
  });
});

describe("rename", () => {
  test("lasts: without the working files, and restored from a snapshot with the old name", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../one");
    await box.ok("-d", place(box, "one"), "backup", "S0");
    await box.ok("-d", place(box, "one"), "rename", "two");
    const name = async (): Promise<string> => (await at(box, "two", "status")).name;
    await box.ok("-d", place(box, "two"), "destroy");
    expect(await name()).toBe("two");
    await box.ok("-d", place(box, "two"), "restore", "S0");
    expect(await name()).toBe("two");
  });

  test("a VM, by name and by path, and back", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../one");
    const one = place(box, "one");
    await box.ok("-d", one, "backup");
    await box.ok("-d", one, "rename", "two");
    const two = place(box, "two");
    expect([existsSync(one), existsSync(join(two, ".vm-renaming.json"))]).toEqual([false, false]);
    expect(await at(box, "two", "status")).toMatchObject({
      name: "two",
      directory: two,
      snapshots: { count: 1 },
    });
    expect(readlinkSync(join(two, ".work/.host"))).toBe(two);
    expect(bytes(box, "two")).toEqual([1]);
    mkdirSync(place(box, "sub"));
    await box.ok("-d", two, "rename", "../sub/three");
    expect((await at(box, "sub/three", "status")).name).toBe("three");
    expect((await box.json("list")).map(({ directory }: any) => directory)).toContain(
      place(box, "sub/three"),
    );
    await box.ok("-d", place(box, "sub/three"), "rename", "three");
  });

  test("has linked clones follow, and one is recorded in its new place", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../base");
    await box.ok("-d", place(box, "base"), "backup", "S1", "--format=qcow2");
    await box.ok("-d", place(box, "base"), "clone", "--keep-guest", "--linked", "S1", "../web");
    await box.ok("-d", place(box, "base"), "rename", "base2");
    expect(bytes(box, "web")).toEqual([1]);
    expect((await at(box, "web", "status")).clonedFrom.directory).toBe(place(box, "base2"));
    await box.running({}, "-d", place(box, "web"));
    // A running clone follows, too; it cannot be renamed itself.
    await box.ok("-d", place(box, "base2"), "rename", "base3");
    await box.ends(75, ["-d", place(box, "web"), "rename", "web2"], "the VM is running");
    await box.ok("-d", place(box, "web"), "stop", "--force");
    await box.ok("-d", place(box, "web"), "rename", "web2");
    expect((await at(box, "base3", "status")).clones).toMatchObject([{ directory: place(box, "web2") }]);
    // Moved by hand: they find it by the same command.
    renameSync(place(box, "base3"), place(box, "base4"));
    const moved = { directory: place(box, "base4"), movedFrom: place(box, "base3") };
    expect(await at(box, "web2", "status")).toMatchObject({ state: "stopped", clonedFrom: moved });
    await box.ok("-d", place(box, "base4"), "rename", place(box, "base4"));
    expect((await at(box, "base4", "status")).name).toBe("base4");
    expect((await at(box, "web2", "status")).state).not.toBe("broken");
    await box.ends(75, ["-d", place(box, "base4"), "snapshots", "rm", "S1"], "builds on S1");
  });

  test.each([
    ["beside its old place, by the clone itself", "base2", "web"],
    ["elsewhere, by its own next command", "sub/dir/base", "sub/dir/base"],
  ])("of a VM that was moved by hand %s: its clones are not lost", async (_where, to, user) => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../base");
    await box.ok("-d", place(box, "base"), "backup", "S1", "--format=qcow2");
    await box.ok("-d", place(box, "base"), "clone", "--keep-guest", "--linked", "S1", "../web");
    mkdirSync(place(box, "sub/dir"), { recursive: true });
    renameSync(place(box, "base"), place(box, to));
    // Another VM with a snapshot of that name is not its base.
    await box.ok("clone", "--keep-guest", "../other");
    await box.ok("-d", place(box, "other"), "backup", "S1", "--format=qcow2");
    await box.ok("-d", place(box, user), "backup", "S2");
    expect(bytes(box, "web")).toEqual([1]);
    expect((await at(box, "web", "status")).clonedFrom.directory).toBe(place(box, to));
    expect((await at(box, to, "status")).clones).toMatchObject([
      { directory: place(box, "web"), missing: false },
    ]);
    await box.ok("-d", place(box, "web"), "run", "--detach");
  });

  test.each([
    ["before the directory is renamed", false],
    ["after it", true],
  ])("that was killed %s is completed by the next command", async (_when, renamed) => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../base");
    await box.ok("-d", place(box, "base"), "backup", "S1", "--format=qcow2");
    await box.ok("-d", place(box, "base"), "clone", "--keep-guest", "--linked", "S1", "../web");
    const [from, to] = [place(box, "base"), place(box, "other")];
    writeFileSync(join(from, ".vm-renaming.json"), JSON.stringify({ version: 1, from, guest: "base" }));
    if (renamed) renameSync(from, to);
    const { stderr } = await box.ok("-d", renamed ? to : from, "backup");
    const name = renamed ? "other" : "base";
    expect((await at(box, name, "status")).name).toBe(name);
    expect((await at(box, "web", "status")).state).toBe("created");
    expect(stderr.includes(`vm -d ${to} rename other`)).toBe(renamed);
    await box.ok("-d", place(box, name), "rename", name);
    expect((await box.ok("-d", place(box, name), "backup")).stderr).not.toContain("was interrupted");
  });

  test("timers of its directory, and no others", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../one");
    box.program("systemctl", `echo "$*" >>${join(box.top, "told")}`);
    box.program("systemd-analyze", "true");
    const units = join(box.home, ".config/systemd/user");
    const enable = (name: string): string =>
      box.write(join(units, "timers.target.wants", name.replace(".service", ".timer")), "");
    await box.ok("-d", place(box, "one"), "timer", "--user", "--install", "backup", "--quiet");
    await box.ok("-d", place(box, "one"), "timer", "--user", "--install", "@verify");
    await box.ok("timer", "--user", "--install");
    const before = readdirSync(units).filter((name) => name.endsWith(".service"));
    for (const name of before) enable(name);
    const text = (name: string) => readFileSync(join(units, name), "utf8");
    const old = before.find((name) => /^vm-backup-.*-one\.service$/.test(name))!;
    const [wanted, other] = [text(old), before.find((name) => !/-one\./.test(name))!];
    await box.ok("-d", place(box, "one"), "rename", "two words");
    const after = readdirSync(units);
    expect(after.filter((name) => name.includes("-one."))).toEqual([]);
    const next = old.replace("-one.", String.raw`-two\x20words.`);
    expect(after).toContain(next.replace(".service", ".timer"));
    expect(text(next)).toBe(
      wanted.replaceAll(place(box, "one"), place(box, "two words")).replace("of one in", "of two words in"),
    );
    expect(after).toContain(other);
    const told = readFileSync(join(box.top, "told"), "utf8");
    expect(told).toContain(`--user enable --now ${next.replace(".service", ".timer")}`);
    expect(told).toContain(`--user disable --now ${old.replace(".service", ".timer")}`);
  });

  test("the tags of its snapshots in the repository; what fails can be repeated", async () => {
    using box = await written();
    addRepository(box);
    const repo = join(box.top, "repo");
    await box.ok("clone", "--keep-guest", "../one");
    await box.ok("-d", place(box, "one"), "backup", "--push");
    box.write(join(repo, "fail-tag"), "1\nno\n");
    await box.ends(74, ["-d", place(box, "one"), "rename", "two"], "but not its snapshots", "rename two");
    rmSync(join(repo, "fail-tag"));
    expect((await box.ok("-d", place(box, "two"), "backup")).stderr).toContain("was interrupted");
    await box.ok("-d", place(box, "two"), "rename", "two");
    const calls = readFileSync(join(repo, "calls"), "utf8");
    const { stdout } = await box.ok("-d", place(box, "two"), "snapshots", "--remote");
    expect(stdout).toMatch(/^SNAPSHOT .* VM .*\nS0 .* two /);
    expect(calls).toMatch(/^tag --remove vm-name=one --add vm-name=two [0-9a-f]{64}$/m);
    expect((await box.ok("-d", place(box, "two"), "backup")).stderr).not.toContain("was interrupted");
  });

  test("refuses a running VM, existing directories, other names, and later commands of a batch", async () => {
    using box = await written();
    mkdirSync(place(box, "full/x"), { recursive: true });
    for (const [name, status] of [
      ["full", 73],
      ["a\nb", 64],
      [".x", 64],
      ["../none/x", 66],
      ["./inside", 64],
      ["vm1/inside", 64],
    ] as const)
      await box.ends(status, ["rename", name]);
    await box.ends(64, "rename x @backup", "last command of a batch");
    await box.running();
    await box.ends(75, "rename x", "the VM is running");
    await box.ok("stop", "--force");
    expect(existsSync(box.path(".vm-renaming.json"))).toBe(false);
  });
});
