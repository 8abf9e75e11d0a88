/** Clones that run at once, of snapshots with RAM and others, as far as no guest must go on: test/e2e/ram-clones.test.ts. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "../fixtures/sandbox.ts";
import { addRam, RAM, RAM_BYTES, withRam } from "./saved-ram.ts";
import { edit, seen, written } from "./snapshots.ts";

const place = (box: Sandbox, name: string): string => join(box.top, name);
const inWork = (box: Sandbox, name: string, path: string): string => join(place(box, name), ".work", path);
const at = (box: Sandbox, name: string, ...words: string[]): Promise<any> =>
  box.json("-d", place(box, name), ...words);

/** Flips bits in the RAM of S0; its modification time is as before. */
function damage(box: Sandbox): void {
  const ram = box.path("backups/S0/state.ram");
  const { atime, mtime } = statSync(ram);
  edit(ram, (bytes) => bytes.fill(7, 1 << 20, (1 << 20) + 1));
  utimesSync(ram, atime, mtime);
}

describe("clone --run of a snapshot with RAM", () => {
  test("linked: maps the snapshot's RAM privately, with a name, UUID and MAC address of its own", async () => {
    using box = await withRam();
    box.qemu = { answers: { "query-migrate": () => ({}) } };
    const { stderr } = await box.ok(
      "clone",
      "--keep-guest",
      "--linked",
      "--count=3",
      "S0",
      "../web",
      "--run",
    );
    expect(stderr).toContain(
      "until it reboots, the guests of the clones have the MAC addresses of the original, on networks of their own",
    );
    expect(stderr).not.toContain("still has the host name");
    expect(box.qemus.filter(({ argv }) => argv.includes("-incoming"))).toHaveLength(3);
    const macs: string[] = [];
    for (const name of ["web1", "web2", "web3"]) {
      const qemu = box.qemus.find(
        ({ argv }) => argv.includes(`guest=${name}`) || argv.join().includes(name),
      )!;
      expect(qemu.argv).toContain("-incoming");
      expect(qemu.option("-object", "id=ram")).toMatch(/size=64M,mem-path=\/proc\/self\/fd\/3,share=off$/);
      expect(qemu.status).toBe("running");
      const status = await at(box, name, "status");
      expect(status).toMatchObject({ state: "running", name, clonedFrom: { snapshot: "S0", linked: true } });
      expect(qemu.argv.join(" ")).toContain(status.nics[0].mac);
      macs.push(status.nics[0].mac);
      expect(existsSync(inWork(box, name, ".vm-suspended"))).toBe(false);
      expect(existsSync(inWork(box, name, ".vm-resumed/ram"))).toBe(false);
    }
    expect(new Set([...macs, (await box.json("status")).nics[0].mac]).size).toBe(4);
    expect(readFileSync(box.path("backups/S0/state.ram")).subarray(0, RAM.length)).toEqual(RAM);
    const [web1, web2] = ["web1", "web2"].map((name) => `vm -d ${place(box, name)}`);
    await box.ok("-d", place(box, "web2"), "stop", "--force");
    await box.ends(
      75,
      "snapshots rm S0",
      "web3 build on S0",
      `${web1} stop && ${web1} backup && ${web1} restore --copy`,
      `independent: ${web2} backup && ${web2} restore --copy`,
    );
    await box.ends(
      69,
      ["-d", place(box, "web1"), "suspend"],
      "mapped from the snapshot that the VM was cloned from",
      `vm -d ${place(box, "web1")} restart`,
    );
  });

  test.each([
    ["qcow2", "SNAPSHOT_FORMAT=qcow2\n"],
    ["gz", "SNAPSHOT_FORMAT=gz\n"],
  ])("full, %s: has a copy of the RAM", async (_format, conf) => {
    using box = await withRam(conf);
    await box.ok("clone", "--keep-guest", "LAST", "../web", "--run");
    expect(box.qemus.at(-1)!.option("-object", "id=ram")).toEndWith("share=on");
    const ram = inWork(box, "web", ".vm-resumed/ram");
    expect(readFileSync(ram).subarray(0, RAM.length)).toEqual(RAM);
    expect(statSync(ram).size).toBe(RAM_BYTES);
    expect(seen(box, inWork(box, "web", "disk-0.img"))).toEqual([1]);
  });

  test("one that was not run keeps its state, which is used once; without its snapshot 74", async () => {
    using box = await withRam();
    box.qemu = { refuse: { status: 1, words: "boom" } };
    const { stderr } = await box.ends(74, "clone --keep-guest --linked --count=2 S0 ../web --run", "boom");
    expect(stderr).toMatch(/the clone .*web[12] was made, but cannot be run/);
    expect(stderr).toMatch(/cannot run the clone .*web[12]/);
    box.qemu = {};
    expect((await at(box, "web1", "status")).state).toBe("suspended");
    await box.ok("-d", place(box, "web1"), "run", "--detach");
    expect(box.qemus.at(-1)!.argv).toContain("-incoming");
    await box.ok("-d", place(box, "web1"), "stop", "--force");
    await box.ok("-d", place(box, "web1"), "run", "--detach");
    expect(box.qemus.at(-1)!.argv).not.toContain("-incoming");
    rmSync(inWork(box, "web2", ".vm-base"));
    symlinkSync("/nonexistent", inWork(box, "web2", ".vm-base"));
    await box.ends(74, ["-d", place(box, "web2"), "run", "--detach"]);
  });

  test("linked, of damaged RAM: 74 as for a full one, and no clone", async () => {
    using box = await withRam();
    box.qemu = { answers: { "query-migrate": () => ({}) } };
    damage(box);
    for (const words of [["--linked"], []])
      await box.ends(
        74,
        ["clone", "--keep-guest", ...words, "S0", "../web", "--run"],
        "state.ram: its checksum is wrong",
      );
    expect(existsSync(place(box, "web"))).toBe(false);
    const { stderr } = await box.ends(74, "clone --keep-guest --linked S0 ../web --run");
    expect(stderr).toContain("vm clone --linked S0 DIR");
    await box.ok("clone", "--keep-guest", "--linked", "S0", "../web");
  });

  test("compares RAM with its checksum once, and again after a change that keeps its times", async () => {
    using box = await withRam();
    box.qemu = { answers: { "query-migrate": () => ({}) } };
    const reads = join(box.top, "reads");
    box.program("openssl", `echo read >>'${reads}'; exec sha256sum | sed 's/  -/ *stdin/'`);
    const count = (): number => (existsSync(reads) ? readFileSync(reads, "utf8").split("\n").length - 1 : 0);
    await box.ok("clone", "--keep-guest", "--linked", "--count=2", "S0", "../web", "--run");
    await box.ok("clone", "--keep-guest", "--linked", "S0", "../other", "--run");
    expect(count()).toBe(1);
    box.qemu = { refuse: { status: 1, words: "boom" } };
    await box.ends(74, "clone --keep-guest --linked S0 ../late --run", "boom");
    damage(box);
    box.qemu = {};
    const { stderr } = await box.ends(
      74,
      ["-d", place(box, "late"), "run", "--detach"],
      "its checksum is wrong",
    );
    expect(stderr).toContain(`vm -d ${place(box, "late")} run --boot`);
    expect(count()).toBe(2);
    await box.ends(74, "clone --keep-guest --linked S0 ../web3 --run", "its checksum is wrong");
    await box.ok("-d", place(box, "late"), "run", "--detach", "--boot");
  });

  test("by the agent, the guest gets a host name and SSH host keys of its own", async () => {
    using box = await withRam();
    const scripts: string[] = [];
    box.qemu = {
      agent: {
        "guest-set-time": () => ({}),
        "guest-exec": ({ path, "input-data": input }) => {
          scripts.push(`${path}\n${Buffer.from(input, "base64").toString()}`);
          return { pid: 1 };
        },
        "guest-exec-status": () => ({ exited: true, exitcode: 0 }),
      },
    };
    const { stderr } = await box.ok("clone", "--linked", "--count=2", "S0", "../Web", "--run");
    expect(stderr).toContain("Web1 has a new host name, machine-id and SSH host keys");
    expect(scripts.map((text) => /^printf '%s\\n' (\S+)/m.exec(text)?.[1])).toEqual(["web1", "web2"]);
    const seeds = scripts.map((text) => /^printf %s ([0-9a-f]{128}) >\/dev\/urandom/m.exec(text)?.[1]);
    expect(new Set(seeds).size).toBe(2);
    expect(seeds).not.toContain(undefined);
  });

  test("whose agent does not answer: a warning with the command for later", async () => {
    using box = await withRam();
    await box.ends(
      0,
      "clone --linked S0 ../web --run",
      "still has the host name, machine-id and SSH host keys of the original",
      `vm -d ${place(box, "web")} job new-identity`,
    );
  });

  test("of another qemu: its disks only, with the reason, and the clone boots", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("backup");
    await addRam(box, "S0", "7.0.0");
    await box.ends(0, "clone --keep-guest --linked S0 ../web --run", "it was saved by qemu 7.0.0");
    expect(box.qemus.at(-1)!.argv).not.toContain("-incoming");
    expect((await at(box, "web", "status")).state).toBe("running");
  });

  test("without --run: its disks only, and says so", async () => {
    using box = await withRam();
    await box.ends(0, "clone --keep-guest --linked S0 ../web", "S0 has RAM, which is left out", "--run");
    expect((await at(box, "web", "status")).state).toBe("created");
  });
});

describe("clone --run", () => {
  test("of a VM that is off boots the clone", async () => {
    using box = await written();
    await box.ok("clone", "--keep-guest", "../web", "--run");
    expect(box.qemus.at(-1)!.argv).not.toContain("-incoming");
    expect((await at(box, "web", "status")).state).toBe("running");
  });

  test("of a running VM: 75, with the way to do it", async () => {
    using box = await written();
    await box.running();
    await box.ends(
      75,
      "clone ../web --run",
      "the VM is running",
      "vm backup --ram && vm clone LAST DIR --run",
    );
  });
});
