/** `export` and `import`: snapshots and VMs in one stream. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { buildTarHeader, parseTarHeader } from "../../src/lib/tar.ts";
import { until, type Result, type Sandbox } from "../fixtures/sandbox.ts";
import { buildChain, edit, seen } from "./snapshots.ts";

const source = (): Promise<Sandbox> => buildChain("export");

const place = (box: Sandbox, name: string): string => join(box.top, name);
const bytes = (box: Sandbox, name: string): number[] => seen(box, join(place(box, name), ".work/disk-0.img"));
const uuidAt = async (box: Sandbox, name: string): Promise<string> =>
  (await box.json("-d", place(box, name), "identity")).uuid;

let box: Sandbox;
beforeAll(async () => {
  box = await source();
});
afterAll(() => box[Symbol.dispose]());

describe("export and import", () => {
  test.each([
    ["S0", ["S0"], [1]],
    ["S2", ["S1", "S2"], [1, 2, 3]],
    [undefined, ["S3"], [1, 2, 3, 4]],
  ])("of %p carry the snapshots %j", async (name, names, content) => {
    const file = join(box.top, `${name}.vm`);
    await box.ok("export", ...(name ? [name] : []), "-o", file);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await box.ok("import", file, `../to-${name}`);
    expect(bytes(box, `to-${name}`)).toEqual(content);
    const listed = await box.json("-d", place(box, `to-${name}`), "snapshots");
    expect(listed).toMatchObject(names.map((one) => ({ name: one, problem: null })));
    await box.ok("-d", place(box, `to-${name}`), "verify", "--all");
    // No trace in the original, and the copy on the same host is another VM, which knows its snapshots.
    expect(readdirSync(box.path("backups")).toSorted()).toEqual(["LAST", "S0", "S1", "S2"]);
    expect(await uuidAt(box, `to-${name}`)).not.toBe(await uuidAt(box, "vm1"));
    await box.ok("-d", place(box, `to-${name}`), "restore", "--copy");
    await box.ok("-d", place(box, `to-${name}`), "run", "--detach");
    await box.ok("-d", place(box, `to-${name}`), "stop", "--force");
  });

  test("on a host without the original keep its UUID, unless --new-identity is given", async () => {
    const file = join(box.top, "moved.vm");
    await box.ok("export", "S2", "-o", file);
    box.environment.XDG_CACHE_HOME = join(box.top, "other-cache");
    mkdirSync(box.environment.XDG_CACHE_HOME);
    await box.ok("import", file, "../moved");
    expect(await uuidAt(box, "moved")).toBe(await uuidAt(box, "vm1"));
    rmSync(place(box, "moved"), { recursive: true });
    await box.ok("import", "--new-identity", file, "../moved");
    expect(await uuidAt(box, "moved")).not.toBe(await uuidAt(box, "vm1"));
    delete box.environment.XDG_CACHE_HOME;
  });

  test("the directory is named like the VM by default, and must be new", async () => {
    const file = join(box.top, "named.vm");
    await box.ok("export", "S0", "-o", file);
    await box.ok("import", file);
    expect(existsSync(box.path("G/backups/S0"))).toBe(true);
    await box.ends(73, ["import", file], "exists already");
    await box.ends(73, ["export", "S0", "-o", file], "exists already");
    rmSync(box.path("G"), { recursive: true });
  });

  test.each(["vm", "ova"])(
    "a snapshot that is exported as %s cannot be removed or merged meanwhile",
    async (format) => {
      const [begun, go] = [join(box.top, `begun-${format}`), join(box.top, `go-${format}`)];
      const dd = Bun.which("dd");
      const waits = `: >'${begun}'; while [ ! -e '${go}' ]; do sleep 0.02; done; exec ${dd} "$@"`;
      const program = box.program("dd", waits);
      const file = join(box.top, `read.${format}`);
      const { done } = box.start("export", "S2", `--format=${format}`, "-o", file);
      const removed: Result[] = [];
      try {
        await until("it copies", () => existsSync(begun));
        removed.push(await box.vm("snapshots", "rm", "S2"), await box.vm("snapshots", "rm", "--merge", "S1"));
      } finally {
        writeFileSync(go, "");
        rmSync(program);
      }
      expect(await done).toMatchObject({ status: 0 });
      for (const result of removed)
        expect(result).toMatchObject({ status: 75, stderr: expect.stringContaining("S2 is being read by ") });
    },
  );

  test("a running VM is refused, with the way through a snapshot", async () => {
    await box.running();
    await box.ends(75, "export -o ../x.vm", "the VM is running", "vm backup && vm export LAST");
    await box.ok("export", "S1", "-o", "../live.vm");
    await box.ok("stop", "--force");
    expect(existsSync(join(box.top, "x.vm"))).toBe(false);
  });

  test("a damaged snapshot is not exported", async () => {
    using other = await source();
    edit(other.path("backups/S1/disk-0.qcow2"), (found) => Buffer.from(found).fill(7, found.length - 9));
    await other.ends(74, "export S2 -o ../x.vm", "S1/disk-0.qcow2: its checksum is wrong");
    expect(existsSync(join(other.top, "x.vm"))).toBe(false);
  });

  test("words: a terminal, wrong formats and missing files", async () => {
    box.terminal = true;
    await box.ends(64, "export S0", "stdout is a terminal", "-o FILE");
    await box.ends(64, "import -", "stdin is a terminal");
    box.terminal = false;
    await box.ends(64, "export --format=tar S0", "vm or ova");
    await box.ends(66, "export S9 -o ../x.vm", "no such snapshot");
    await box.ends(66, "import ../none.vm", "cannot read");
    writeFileSync(join(box.top, "empty.vm"), "");
    await box.ends(74, "import ../empty.vm", "it is empty");
    await box.ends(66, "export S0 -o ../none/x.vm", "no such directory");
  });
});

describe("what was interrupted continues", () => {
  test("an export, with the last member that was written completely", async () => {
    await box.ok("export", "S2", "-o", "../once.vm");
    const once = readFileSync(join(box.top, "once.vm"));
    for (const part of [0.2, 0.5, 0.9, 1]) {
      const path = join(box.top, `again-${part}.vm`);
      writeFileSync(`${path}.vm-partial`, once.subarray(0, Math.floor(once.length * part)), { mode: 0o600 });
      await box.ends(0, ["export", "S2", "-o", path], part > 0.3 ? "continuing an interrupted export" : "");
      expect(readFileSync(path).equals(once)).toBe(true);
      expect(existsSync(`${path}.vm-partial`)).toBe(false);
    }
    // Another snapshot's is not.
    writeFileSync(join(box.top, "other.vm.vm-partial"), once.subarray(0, 9000), { mode: 0o600 });
    await box.ok("export", "S0", "-o", "../other.vm");
    await box.ok("import", join(box.top, "other.vm"), "../other");
    expect(bytes(box, "other")).toEqual([1]);
  });

  test("an import from a file, without receiving again what is there", async () => {
    await box.ok("export", "S2", "-o", "../whole.vm");
    const path = join(box.top, "part.vm");
    const whole = readFileSync(join(box.top, "whole.vm"));
    writeFileSync(path, whole);
    truncateSync(path, Math.floor(whole.length * 0.8));
    await box.ends(74, ["import", path, "../continued"], "it is truncated");
    expect(existsSync(place(box, "continued/backups"))).toBe(false);
    const kept = join(place(box, "continued"), ".vm-partial-import/0/disk-0.qcow2");
    const before = statSync(kept).ino;
    writeFileSync(path, whole);
    await box.ends(0, ["import", path, "../continued"], "continuing an interrupted import");
    expect(statSync(join(place(box, "continued"), "backups/S1/disk-0.qcow2")).ino).toBe(before);
    expect(bytes(box, "continued")).toEqual([1, 2, 3]);
    expect(readdirSync(place(box, "continued")).toSorted()).toEqual([".work", "backups"]);
  });

  test("an import receives again what a crash of the host has damaged", async () => {
    await box.ok("export", "S2", "-o", "../good-again.vm");
    const whole = join(box.top, "good-again.vm");
    const path = join(box.top, "cut.vm");
    writeFileSync(path, readFileSync(whole).subarray(0, Math.floor(statSync(whole).size * 0.8)));
    await box.ends(74, ["import", path, "../crashed"], "it is truncated");
    const kept = join(place(box, "crashed"), ".vm-partial-import/0/disk-0.qcow2");
    writeFileSync(kept, Buffer.alloc(statSync(kept).size));
    writeFileSync(path, readFileSync(whole));
    await box.ends(
      74,
      ["import", path, "../crashed"],
      "in what was received before",
      "run the command again",
    );
    await box.ends(0, ["import", path, "../crashed"], "continuing an interrupted import");
    expect(bytes(box, "crashed")).toEqual([1, 2, 3]);
  });
});

test("headers of GNU tar are read, and those made here are its own", () => {
  const fd = openSync("/dev/null", "r");
  const none = Buffer.alloc(512);
  readSync(fd, none);
  closeSync(fd);
  expect(parseTarHeader(none)).toBeUndefined();
  for (const size of [0, 1, 2 ** 33 - 1, 2 ** 33, 2 ** 45]) {
    const header = buildTarHeader("0/x", size, 7);
    expect(parseTarHeader(header)).toEqual({ name: "0/x", bytes: size, type: "0" });
  }
  const { stdout } = Bun.spawnSync(["tar", "-tvf", "-"], {
    stdin: Buffer.concat([buildTarHeader("0/disk", 3, 0), Buffer.from("abc"), Buffer.alloc(509 + 1024)]),
    env: { TZ: "UTC" },
  });
  expect(stdout.toString()).toMatch(/^-rw------- 0\/0 +3 1970-01-01 00:00 0\/disk\n$/);
});
