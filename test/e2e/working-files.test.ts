/** Working files that are damaged, copied, symlinks, of the earlier program, or the user's own. */
import { describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "./harness.ts";
import { expectError, sampled, sha256, smallSandbox, suite } from "./tools.ts";

/** The earlier program's: the same files, without the mark. */
const forget = (box: Sandbox): void => unlinkSync(join(box.work, ".vm.json"));

suite("a damaged mark", () => {
  test.each<[string, (path: string) => void]>([
    ["empty", (path) => truncateSync(path, 0)],
    ["with a run that is a number", (path) => writeFileSync(path, '{"vm":1,"run":5,"created":"x"}')],
  ])("%s does not prevent any command", async (_what, damage) => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    const mark = join(box.work, ".vm.json");
    damage(mark);
    const stopped = await box.ok(["stop"]);
    expect(stopped.stderr.split(`${mark} is damaged`)).toHaveLength(2);
    await box.ok(["status"]);
    expect((await box.ok(["backup", "S1"])).stderr).toContain("power cut");
    damage(mark);
    await box.ok(["restore", "S0"]);
    damage(join(box.work, ".vm.json"));
    await box.ok(["destroy"]);
    expect(readdirSync(box.tmp)).toEqual([]);
  });

  test("is rewritten by the next change", async () => {
    using box = smallSandbox();
    await box.ok(["--inplace", "create", "G"]);
    truncateSync(box.path(".vm.json"), 40);
    box.write("vm.defaults", "-device nonsense\n");
    expectError(await box.vm(["run"]), 74, /qemu did not start/);
    expect((await box.ok(["status"])).stderr).not.toContain("damaged");
    await box.ok(["destroy"]);
    expect(readdirSync(box.host).toSorted()).toEqual(["guest.env", "vm.defaults"]);
  });
});

suite("the user's files in HOSTDIR", () => {
  test("are not removed by create, restore or destroy in place", async () => {
    using box = smallSandbox();
    box.write("known_hosts", "mine");
    box.write(".out/result", "mine");
    const refused = await box.vm(["--inplace", "create", "G"]);
    expectError(refused, 73, /not made by this program: \.out, known_hosts/);
    expect(readdirSync(box.host).toSorted()).toEqual([".out", "known_hosts"]);
    await box.ok(["@create", "G", "@backup", "S0"]);
    expectError(await box.vm(["--inplace", "restore"]), 73, /known_hosts/);
    expect(box.read("known_hosts") + box.read(".out/result")).toBe("minemine");
    renameSync(box.path("known_hosts"), box.path("hosts"));
    renameSync(box.path(".out"), box.path("out"));
    await box.ok(["--inplace", "restore"]);
    box.write("console.log", "mine");
    expectError(await box.vm(["run"]), 73, /console\.log/);
    await box.ok(["destroy"]);
    expect(box.read("console.log")).toBe("mine");
  });

  test("disks copied without .work are not assumed to be older than the last snapshot", async () => {
    using box = smallSandbox();
    await box.ok(["--inplace", "@create", "G", "@backup", "S0"]);
    const copy = join(box.top, "copy");
    mkdirSync(copy, { mode: 0o700 });
    // Like `cp -r *`.
    for (const name of readdirSync(box.host).filter((item) => !item.startsWith(".")))
      cpSync(box.path(name), join(copy, name), { recursive: true, verbatimSymlinks: true });
    const before = sha256(join(copy, "disk-0.img"));
    for (const command of ["run", "restore"])
      expectError(await box.vm([command], { cwd: copy }), 73, /disk-0\.img/);
    expect((await box.ok(["adopt"], { cwd: copy })).stdout).toMatch(/^disk-0\.img .* changed /m);
    expect(sha256(join(copy, "disk-0.img"))).toBe(before);
    expect((await box.ok(["backup", "S1"], { cwd: copy })).stderr).toContain("power cut");
    await box.ok(["restore", "S0"], { cwd: copy });
    await box.ok(["destroy"], { cwd: copy });
    expect(readdirSync(copy).toSorted()).toEqual(["backups", "guest.env"]);
  });
});

suite("adopt", () => {
  test("adopts working files of the earlier program", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    forget(box);
    const { work } = box;
    const disk = sha256(join(work, "disk-0.img"));
    const refused = await box.vm(["backup"]);
    expectError(refused, 74, /mark/);
    expect(refused.stderr).toContain("adopt");
    expect(refused.stderr).not.toContain("rm ");
    const shown = await box.ok(["adopt", "--dry-run"]);
    expect(shown.stdout).toMatch(/^directory +\/.*\ndisk-0\.img .*\n.*FIRSTTIME.*\nlast snapshot +S0 /);
    expect(existsSync(join(work, ".vm.json"))).toBe(false);
    unlinkSync(join(work, ".host"));
    expect((await box.ok(["adopt"])).stdout).toBe(shown.stdout);
    expect(readlinkSync(join(work, ".host"))).toBe(box.host);
    expect(sha256(join(work, "disk-0.img"))).toBe(disk);
    expect((await box.ok(["adopt"])).stderr).toContain("already");
    expect((await box.ok(["backup"])).stderr).toContain("power cut");
    await box.ok(["destroy"]);
    expect(readdirSync(box.tmp)).toEqual([]);
  });

  test.each(
    sampled<[string, number, RegExp, (box: Sandbox) => void]>(
      [
        ["a disk is missing", 66, /disk-0\.img is missing/, (box) => rmSync(join(box.work, "disk-0.img"))],
        [
          "a disk is truncated",
          74,
          /damaged|cannot/,
          (box) => truncateSync(join(box.work, "disk-0.img"), 70_000),
        ],
        [
          "a disk is not a qcow2 image",
          74,
          /raw, not qcow2/,
          (box) => writeFileSync(join(box.work, "disk-0.img"), "x"),
        ],
        [
          "a disk is a symlink",
          74,
          /symbolic link to/,
          (box) => {
            renameSync(join(box.work, "disk-0.img"), join(box.top, "disk"));
            symlinkSync(join(box.top, "disk"), join(box.work, "disk-0.img"));
          },
        ],
        [
          "a disk refers to another file",
          74,
          /external backing file/,
          (box) => {
            const disk = join(box.work, "disk-0.img");
            rmSync(disk);
            Bun.spawnSync(["qemu-img", "create", "-qf", "qcow2", "-b", "/etc/passwd", "-F", "raw", disk]);
          },
        ],
        [
          "the directory is accessible to other users",
          74,
          /writable by other users/,
          (box) => Bun.spawnSync(["chmod", "777", box.work]),
        ],
        [
          "guest.env is missing",
          74,
          /there is no guest\.env in it, nor in /,
          (box) => rmSync(join(box.work, "guest.env")),
        ],
        [
          "they are of another VM",
          74,
          /belong to the VM in/,
          (box) => {
            const link = join(box.work, ".host");
            rmSync(link);
            symlinkSync(box.top, link);
          },
        ],
      ],
      1,
      3,
    ),
  )("refuses if %s", async (_what, status, reason, change) => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    forget(box);
    const { work } = box;
    change(box);
    expectError(await box.vm(["adopt"]), status, reason);
    expect(existsSync(join(work, ".vm.json"))).toBe(false);
  });
});

suite("a WORKDIR whose disks were removed by age", () => {
  test("is missing: backup fails, restore creates new working files and removes the rest", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    rmSync(join(box.work, "disk-0.img"));
    const rest = box.work;
    expectError(await box.vm(["backup"]), 74, /all disks in \S+ .* are gone/);
    expect(readdirSync(box.path("backups")).toSorted()).toEqual(["LAST", "S0"]);
    await box.ok(["restore"]);
    expect(existsSync(rest)).toBe(false);
    rmSync(join(box.work, "disk-0.img"));
    await box.ok(["destroy"]);
    expect(readdirSync(box.tmp)).toEqual([]);
  });
});

suite("a working disk that is a symlink", () => {
  test("is refused by all commands; restore and destroy remove the symlink, and report it", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    const far = join(box.top, "storage.img");
    const link = (): void => {
      renameSync(join(box.work, "disk-0.img"), far);
      symlinkSync(far, join(box.work, "disk-0.img"));
    };
    link();
    for (const argv of [["run"], ["backup"], ["backup", "--format=qcow2"]]) {
      const refused = await box.vm(argv);
      expectError(refused, 74, /cannot use the disk \S+: it is a symbolic link to/);
      expect(refused.stderr).toContain("TMPDIR");
    }
    const sum = sha256(far);
    expect((await box.ok(["restore", "S0"])).stderr).toContain(`${far} is kept`);
    expect(sha256(far)).toBe(sum);
    expect(lstatSync(join(box.work, "disk-0.img")).isFile()).toBe(true);
    link();
    await box.ok(["destroy"]);
    expect(readFileSync(far).length).toBeGreaterThan(0);
  });
});

describe("symlinks among the files of a run", () => {
  suite("in place", () => {
    test(".out as a symlink is never shared, console.log as a symlink is never followed", async () => {
      using box = smallSandbox();
      await box.ok(["--inplace", "create", "G"]);
      box.write("precious/file", "mine");
      rmSync(box.path(".out"), { recursive: true });
      symlinkSync(box.path("precious"), box.path(".out"));
      expectError(await box.vm(["run"]), 74, /\.out: it is a symbolic link, not a directory/);
      expect(readdirSync(box.path("precious"))).toEqual(["file"]);
    });
  });
});

suite("a raw image without a format", () => {
  test("stays raw, whatever header a guest writes into it", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup", "S0"]);
    const image = box.write("data.img", "\0".repeat(1 << 20));
    // qemu refuses its arguments, so that nothing boots.
    box.write("vm.defaults", "-device nonsense\n");
    const run = ["--image=VIRT=data.img", "run"];
    expectError(await box.vm(run), 74, /qemu did not start/);
    for (const file of [join(box.work, "guest.env"), box.path("guest.env")])
      expect(readFileSync(file, "utf8")).toContain(`IMAGE_FORMATS=(\n    "raw=${image}"\n)`);
    const evil = box.path("evil.img");
    Bun.spawnSync(["qemu-img", "create", "-qf", "qcow2", "-b", "/etc/passwd", "-F", "raw", evil]);
    const header = readFileSync(evil);
    writeFileSync(image, Buffer.concat([header, Buffer.alloc((1 << 20) - header.length)]));
    const again = await box.vm(run);
    expectError(again, 74, /qemu did not start/);
    expect(again.stderr).toContain("is used as raw");
    // A restore brings older settings, but keeps recorded formats.
    await box.ok(["restore", "S0"]);
    expect(readFileSync(join(box.work, "guest.env"), "utf8")).toContain(`"raw=${image}"`);
    const unknown = await box.vm([`--image=VIRT=${evil}`, "run"]);
    expectError(unknown, 78, /has a qcow2 header, which may refer to other files/);
    expect(unknown.stderr).toMatch(/hint|raw=/);
    expect(unknown.stderr.indexOf("=raw=")).toBeLessThan(unknown.stderr.indexOf("=qcow2="));
  });

  test("is recorded by create, if it exists already", async () => {
    using box = smallSandbox();
    box.write("data.img", "\0".repeat(1 << 20));
    await box.ok(["create", "G", "--image=VIRT=data.img"]);
    expect(readFileSync(join(box.work, "guest.env"), "utf8")).toContain('"VIRT=raw=@HOSTDIR@/data.img"');
  });
});
