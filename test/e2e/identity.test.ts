/** The identity of a VM, on this host and in a restic repository. */
import { expect, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { initRepository } from "../fixtures/restic-repository.ts";
import type { RunOptions, Sandbox } from "./harness.ts";
import { configure, expectError, smallSandbox, suite, testInTurn } from "./tools.ts";

const UUID = /^UUID="([0-9a-f-]{36})"$/m;
const uuidIn = (path: string): string | undefined => UUID.exec(readFileSync(path, "utf8"))?.[1];
const identity = async (box: Sandbox, cwd = box.host) =>
  JSON.parse((await box.ok(["identity", "--json"], { cwd })).stdout) as {
    uuid: string | null;
    former: string[];
  };

suite("the identity of a VM", () => {
  test("is created with it, recorded in its snapshots, and kept by a move, a restore and destroy", async () => {
    using box = smallSandbox();
    expectError(await box.vm(["identity"]), 66, /no VM in/);
    await box.ok(["create", "G"]);
    const { uuid } = await identity(box);
    expect(uuidIn(box.path(".work/guest.env"))).toBe(uuid!);
    await box.ok(["backup"]);
    const shown = JSON.parse((await box.ok(["snapshots", "show", "S0", "--json"])).stdout);
    expect(shown[0]).toMatchObject({ vm: uuid, id: expect.stringMatching(/^[0-9a-f]{16}$/) });

    const moved = join(box.top, "moved");
    renameSync(box.host, moved);
    const there: RunOptions = { cwd: moved };
    await box.ok(["backup"], there);
    await box.ok(["destroy"], there);
    // Of another VM: its settings are restored, its identity is not.
    const env = join(moved, "backups/S0/guest.env");
    writeFileSync(env, readFileSync(env, "utf8").replace(uuid!, crypto.randomUUID()));
    await Bun.$`sha256sum disk* guest.env DESCRIPTION TS manifest.json > SHA256SUMS`
      .cwd(dirname(env))
      .quiet();
    await box.ok(["restore", "S0"], there);
    expect((await identity(box, moved)).uuid).toBe(uuid);
    expect(uuidIn(join(moved, ".work/guest.env"))).toBe(uuid!);
  });

  test("a VM of an older version gets it with its first change, here and in HOSTDIR; reading creates none", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G", "@backup"]);
    for (const name of ["guest.env", ".work/guest.env"])
      box.write(name, box.read(name).replace(UUID, "# no"));
    for (const command of ["status", "snapshots", "config", "identity"]) await box.ok([command]);
    expect(await identity(box)).toMatchObject({ uuid: null });
    await box.ok(["backup"]);
    const { uuid } = await identity(box);
    expect([uuidIn(box.path("guest.env")), uuidIn(box.path(".work/guest.env"))]).toEqual([uuid!, uuid!]);
    // A UUID in the user's settings is not an identity.
    expect(JSON.parse(box.read("backups/S1/manifest.json")).vm).toBe(uuid);
  });

  test("warns of a copy beside the original, until it is renewed", async () => {
    using box = smallSandbox();
    await box.ok(["--inplace", "create", "G", "@backup"]);
    const copy = join(box.top, "copy");
    cpSync(box.host, copy, { recursive: true, verbatimSymlinks: true });
    const options = { cwd: copy };
    const warned = await box.ok(["backup", "@backup"], options);
    expect(warned.stderr.match(/contain the same VM/g)).toHaveLength(1);
    expect(warned.stderr).toContain("vm identity --new");
    const before = (await identity(box)).uuid!;
    const renewed = await box.ok(["identity", "--new"], options);
    expect(renewed.stderr).not.toContain("contain the same VM");
    expect(renewed.stdout).toMatch(new RegExp(`^[0-9a-f-]{36}\nformer ${before}\n$`));
    for (const cwd of [copy, box.host])
      expect((await box.ok(["backup"], { cwd })).stderr).not.toContain("contain the same VM");
    expect((await identity(box)).uuid).toBe(before);
  });
});

/** Settings of a restic repository, whose password is in a file. */
async function withRepository(box: Sandbox): Promise<(...words: string[]) => Promise<string>> {
  const password = join(box.home, "password");
  const place = join(box.top, "repo");
  writeFileSync(password, "secret", { mode: 0o600 });
  configure(
    box,
    `MEMORY=64M\nPORT=\nDISKS=(VIRT=16M)\nSNAPSHOT_REPO='${place}'\nSNAPSHOT_PASSWORD_FILE='${password}'\n`,
  );
  const restic = async (...words: string[]): Promise<string> =>
    await Bun.$`restic ${words}`
      .env({ ...process.env, RESTIC_REPOSITORY: place, RESTIC_PASSWORD_FILE: password, HOME: box.home })
      .cwd(box.path("backups"))
      .quiet()
      .text();
  mkdirSync(box.path("backups"), { recursive: true });
  initRepository(place, password);
  return restic;
}

const remote = async (box: Sandbox, cwd = box.host) =>
  JSON.parse((await box.ok(["snapshots", "--remote", "--json"], { cwd })).stdout) as {
    id: string;
    name: string;
    made: string;
    uuid: string | null;
  }[];
const remoteNames = async (box: Sandbox, cwd = box.host): Promise<string[]> =>
  (await remote(box, cwd)).map(({ name }) => name);

suite(
  "the identity of a VM in a repository",
  () => {
    testInTurn(0)(
      "separates VMs of one name: prune and restore touch no other VM's; a move keeps pushed snapshots",
      async () => {
        using box = smallSandbox("web");
        await withRepository(box);
        await box.ok(["create", "A"]);
        for (const name of ["A1", "A2"]) await box.ok(["backup", "--push", name]);
        const other = join(box.top, "other/web");
        mkdirSync(other, { recursive: true, mode: 0o700 });
        await box.ok(["create", "B", "@backup", "--push", "B1"], { cwd: other });
        await box.ok(["backup", "--push", "B2"], { cwd: other });
        const pruned = await box.ok(["prune", "--remote", "--keep-last=1", "--json"], { cwd: other });
        expect(JSON.parse(pruned.stdout)).toMatchObject([
          { name: "B1", action: "remove", reasons: [] },
          { name: "B2", action: "keep", reasons: ["last", "newest"] },
        ]);
        expect(await remoteNames(box, other)).toEqual(["B2"]);

        const empty = join(box.top, "new/web");
        mkdirSync(empty, { recursive: true, mode: 0o700 });
        const refused = await box.vm(["restore", "--from-remote"], { cwd: empty });
        expectError(refused, 64, /2 VMs whose directory is called web/);
        expect(refused.stderr).toMatch(/A2, .*\n.*B2, .*\n {2}choose one by id: vm restore --from-remote/);
        const { id, uuid } = (await remote(box))[0]!;
        await box.ok(["restore", "--from-remote", id], { cwd: empty });
        expect(await identity(box, empty)).toMatchObject({ uuid });

        // That is a copy now.
        for (const words of [
          ["backup", "--push"],
          ["snapshots", "push", "A1"],
          ["prune", "--remote", "--keep-last=1"],
        ])
          expectError(await box.vm(words, { cwd: empty }), 78, /contain the same VM/);
        rmSync(empty, { recursive: true });

        const moved = join(box.top, "moved away");
        renameSync(box.host, moved);
        expect(await remoteNames(box, moved)).toEqual(["A1", "A2"]);
        await box.ok(["restore", "A1", "--from-remote"], { cwd: moved });
      },
    );

    testInTurn(1)(
      "snapshots of an older version are listed, not guessed, and tagged when pushed again",
      async () => {
        using box = smallSandbox("web");
        const restic = await withRepository(box);
        await box.ok(["create", "A", "@backup", "old"]);
        await Bun.sleep(1100);
        await box.ok(["backup", "newer"]);
        for (const name of ["old", "newer"]) {
          const time = box.read("backups", name, "TS").trim();
          const tags = ["vm", "vm-name=web", `vm-snapshot=${name}`].flatMap((tag) => ["--tag", tag]);
          await restic("backup", "--time", time, ...tags, name);
        }
        const listed = await box.ok(["snapshots", "--remote"]);
        expect(listed.stdout).toBe("");
        expect(listed.stderr).toContain("2 older snapshots of a VM called web");
        expect((await box.ok(["snapshots", "--remote", "--by-name"])).stdout).toMatch(/^old .* no UUID$/m);
        const refused = await box.vm(["restore", "old", "--from-remote"]);
        expectError(refused, 66, /no snapshot old with this VM's UUID/);
        const [, id] = / restore --from-remote ([0-9a-f]{8})$/m.exec(refused.stderr)!;
        await box.ok(["restore", "--from-remote", id!]);

        const kept = await box.ok(["prune", "--remote", "--keep-last=1", "--dry-run"]);
        expect(kept.stdout).toBe("");
        expect(kept.stderr).toMatch(/not counted, as they have no UUID: .*old \(/);
        const byName = await box.ok(["prune", "--remote", "--by-name", "--keep-last=1", "--dry-run"]);
        expect(byName.stdout).toMatch(/^remove old\nkeep newer {2}last, newest\n$/);

        // An empty directory of that name: one VM.
        const empty = join(box.top, "new/web");
        mkdirSync(empty, { recursive: true, mode: 0o700 });
        await box.ok(["restore", "--from-remote"], { cwd: empty });

        expect((await box.ok(["snapshots", "push", "old"])).stderr).toContain(
          "old is in the repository already",
        );
        expect(await remote(box)).toMatchObject([{ name: "old", uuid: (await identity(box)).uuid }]);
      },
    );

    testInTurn(0)("the repeated hour: pushed once, and the newest is the last created one", async () => {
      using box = smallSandbox("web");
      await withRepository(box);
      // restic gets and prints UTC: without zone data a local time would be hours off.
      const zones = join(box.top, "zones");
      const wrapper = join(box.top, "bin/restic");
      mkdirSync(dirname(wrapper));
      writeFileSync(wrapper, `#!/bin/sh\necho "$TZ" >>${zones}\nexec ${Bun.which("restic")!} "$@"\n`);
      chmodSync(wrapper, 0o755);
      box.environment.PATH = `${dirname(wrapper)}:${process.env.PATH}`;
      box.environment.TZ = "Europe/Berlin";
      await box.ok(["create", "A"]);
      // 02:30 and 02:45 CEST, 02:30 CET.
      const times = {
        N1: "2025-10-26T00:30:00.000Z",
        N2: "2025-10-26T00:45:00.000Z",
        N3: "2025-10-26T01:30:00.000Z",
      };
      for (const [name, time] of Object.entries(times)) {
        await box.ok(["backup", name]);
        const file = box.path("backups", name, "manifest.json");
        writeFileSync(file, readFileSync(file, "utf8").replace(/("made": )"[^"]*"/, `$1"${time}"`));
        await Bun.$`rm SHA256SUMS; sha256sum * > SHA256SUMS`.cwd(dirname(file)).quiet();
      }
      for (let turn = 0; turn < 2; turn++) await box.ok(["snapshots", "push", "N1", "N2", "N3"]);
      expect((await remote(box)).map(({ name, made }) => [name, made])).toEqual(Object.entries(times));
      expect(new Set(readFileSync(zones, "utf8").trim().split("\n"))).toEqual(new Set(["UTC"]));
      const empty = join(box.top, "new/web");
      mkdirSync(empty, { recursive: true, mode: 0o700 });
      expect((await box.ok(["restore", "--from-remote"], { cwd: empty })).stderr).toContain("fetching N3,");
    });

    test("a repository is untrusted: fetches only the wanted snapshot and its parents, regular and small files", async () => {
      using box = smallSandbox("web");
      const restic = await withRepository(box);
      await box.ok(["create", "A", "@backup", "S0"]);
      const { uuid } = await identity(box);
      const push = async (name: string, ...further: string[]): Promise<void> => {
        const tags = ["vm", "vm-name=web", `vm-snapshot=${name}`, `vm-uuid=${uuid}`];
        await restic("backup", ...tags.flatMap((tag) => ["--tag", tag]), name, ...further);
      };
      const make = async (name: string, script: string): Promise<void> => {
        await Bun.$`cp -r S0 ${name}; cd ${name}; sh -c ${script}`.cwd(box.path("backups")).quiet();
      };
      const sum = "rm SHA256SUMS; sha256sum * > SHA256SUMS";
      await make("plain", sum);
      await make("further", "true");
      await push("plain", "further");
      await make("zero", `printf '%064d  /dev/zero\\n' 0 >> SHA256SUMS`);
      await make("up", `printf '%064d  ../../x\\n' 0 >> SHA256SUMS`);
      await make("pipe", "mkfifo TS2");
      await make("large", `truncate -s 3M DESCRIPTION; ${sum}`);
      await make("parent", `sed -i 's/"format"/"parent": "..\\/x", "format"/' manifest.json; ${sum}`);
      const bad = {
        zero: /SHA256SUMS:\d+: not a line of sha256sum/,
        up: /SHA256SUMS:\d+: not a line of sha256sum/,
        pipe: /no regular file/,
        large: /larger than/,
        parent: /'\.\.\/x'/,
      };
      for (const name of Object.keys(bad)) await push(name);
      for (const name of ["plain", "further", ...Object.keys(bad)])
        rmSync(box.path("backups", name), { recursive: true });
      const fetched = await box.ok(["restore", "plain", "--from-remote"]);
      expect(fetched.stderr).toContain("ignoring 1 other entries");
      for (const [name, message] of Object.entries(bad)) {
        const result = await box.vm(["restore", name, "--from-remote"]);
        expect(result.stderr).toMatch(message);
        expect(result.status).toBe(74);
      }
      expect((await Bun.$`ls -A`.cwd(box.path("backups")).text()).trim().split("\n")).toEqual([
        "LAST",
        "S0",
        "plain",
      ]);
    });
  },
  ["restic"],
);
