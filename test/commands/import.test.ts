/** `import` of exports that were damaged, packed again, or changed by one who knows the format. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildTarHeader, parseTarHeader, tarLength } from "../../src/lib/tar.ts";
import { sha256 } from "../../src/lib/crypto.ts";
import { type Sandbox } from "../fixtures/sandbox.ts";
import { buildChain, qemuImg } from "./snapshots.ts";

const place = (one: Sandbox, name: string): string => join(one.top, name);

let box: Sandbox;
beforeAll(async () => {
  box = await buildChain("export");
});
afterAll(() => box[Symbol.dispose]());

const changedFile = (): string => join(box.top, "changed.vm");

const refused = async (content: Buffer | string): Promise<string> => {
  writeFileSync(changedFile(), content);
  const { status, stderr } = await box.vm("import", changedFile(), "../refused");
  expect({ status, stderr }).toMatchObject({ status: 74 });
  expect(existsSync(place(box, "refused/backups"))).toBe(false);
  expect(existsSync(place(box, "refused/.work"))).toBe(false);
  rmSync(place(box, "refused"), { recursive: true, force: true });
  return stderr;
};

describe("a changed export", () => {
  let good: Buffer;
  beforeAll(async () => {
    await box.ok("export", "S2", "-o", "../good.vm");
    good = readFileSync(join(box.top, "good.vm"));
  });

  test("is refused wherever it is cut off", async () => {
    const random = Array.from({ length: 3 }, () => Math.floor(Math.random() * good.length));
    for (const at of [0, 513, good.length - 1, good.length - 1024, ...random])
      await refused(good.subarray(0, at));
  });

  test("is refused wherever a bit is flipped, and with data after its end", async () => {
    for (let round = 0; round < 10; round++) {
      const changed = Buffer.from(good);
      // Half of them in headers and lists.
      const at = Math.floor(Math.random() * (round % 2 ? good.length : 8192));
      changed[at]! ^= 1 << (round % 8);
      await refused(changed);
    }
    expect(await refused(Buffer.concat([good, Buffer.alloc(512)]))).toContain("data after its end");
  });

  test("into a directory where another import makes a VM meanwhile is refused, and what is there stays", async () => {
    await box.ok("export", "S0", "-o", "../first.vm");
    await box.ok("export", "S0", "--format=ova", "-o", "../first.ova");
    for (const names of [
      ["first.vm", "good.vm"],
      ["first.ova", "good.vm"],
      ["first.ova", "first.ova"],
      ["good.vm", "good.vm"],
    ]) {
      const all = names.map((name) => box.start("import", join(box.top, name), "../both"));
      const results = await Promise.all(all.map(({ done }) => done));
      expect(results.map(({ status }) => status).toSorted()).toEqual([0, 73]);
      expect(results.find(({ status }) => status === 73)!.stderr).toContain("exists already");
      expect(existsSync(place(box, "both/.work/disk-0.img"))).toBe(true);
      rmSync(place(box, "both"), { recursive: true });
    }
  });

  /** An archive with another index, and whatever it says. */
  const rebuild = (change: (index: any) => void): Buffer => {
    const { bytes: length } = parseTarHeader(good.subarray(0, 512))!;
    const index = JSON.parse(good.subarray(512, 512 + length).toString());
    change(index);
    const text = Buffer.from(`${JSON.stringify(index, null, 1)}\n`);
    const first = Buffer.concat([buildTarHeader("vm-export.json", text.length, 0), text]);
    return Buffer.concat([
      first,
      Buffer.alloc(tarLength(text.length) - first.length),
      good.subarray(tarLength(length)),
    ]);
  };

  test.each<[string, (index: any) => void, string]>([
    ["an absolute name", (index) => (index.files[0].name = "/etc/x"), "is not a file name"],
    ["a name above", (index) => (index.files[0].name = ".."), "is not a file name"],
    ["a name with a path", (index) => (index.files[0].name = "../x"), "is not a file name"],
    ["a hidden name", (index) => (index.files[0].name = ".vm.json"), "hidden file"],
    ["an escape", (index) => (index.files[0].name = "\u001b[2J"), "is not a file name"],
    ["a long name", (index) => (index.files[0].name = "x".repeat(99)), "too long"],
    ["a name twice", (index) => index.files.push(index.files[0]), "twice"],
    ["a huge small file", (index) => (index.files.at(-1).bytes = 2 ** 21), "larger than"],
    ["a negative size", (index) => (index.files[0].bytes = -1), "cannot have -1 bytes"],
    [
      "a size beyond all",
      (index) => (index.files[0].bytes = 2 ** 60),
      "cannot have 1152921504606847000 bytes",
    ],
    [
      "more than fits",
      (index) => (index.files.find((one: any) => one.name === "disk-0.qcow2").bytes = 2 ** 52),
      "",
    ],
    ["no such snapshot", (index) => (index.files[0].snapshot = 9), "in none of its snapshots"],
    ["a path as snapshot", (index) => (index.chain[0] = "../S1"), "cannot be a snapshot's name"],
    ["one snapshot twice", (index) => (index.chain[0] = "S2"), "the same name"],
    ["another checksum", (index) => (index.files[0].sha256 = "0".repeat(64)), "is wrong"],
    ["no files", (index) => (index.files = 7), "damaged"],
    ["null", (index) => (index.files = [null]), "is not a file name"],
  ])("is refused with %s", async (_, change, words) => {
    writeFileSync(changedFile(), rebuild(change));
    const result = await box.vm("import", changedFile(), "../refused");
    expect([73, 74]).toContain(result.status);
    expect(result.stderr).toContain(words);
    expect(existsSync(place(box, "refused"))).toBe(false);
  });

  test("of a newer version is refused with 78", async () => {
    writeFileSync(
      changedFile(),
      rebuild((index) => (index.version = 2)),
    );
    await box.ends(78, ["import", changedFile(), "../refused"], "newer version");
  });

  test.each<[string, (name: string, content: Buffer) => Buffer, string]>([
    [
      "settings that are code",
      (name, content) =>
        name === "guest.env" ? Buffer.concat([content, Buffer.from("touch /tmp/x\n")]) : content,
      "plain NAME=value",
    ],
    [
      "a disk with another backing file",
      (name, content) =>
        name === "disk-0.qcow2"
          ? Buffer.from(content.toString("latin1").replace("../S1/disk-0", "/etc/passwd0"), "latin1")
          : content,
      "",
    ],
  ])("whose checksums are right is refused with %s", async (_, change, words) => {
    writeFileSync(changedFile(), forge(good, change));
    const result = await box.vm("import", changedFile(), "../refused");
    expect({ ...result }).toMatchObject({ status: 74 });
    expect(result.stderr).toContain(words);
    expect(existsSync(place(box, "refused"))).toBe(false);
  });

  test("packed again by tar is refused, and told from a damaged one", async () => {
    const dir = join(box.top, "unpacked");
    mkdirSync(dir);
    const tar = (...words: string[]): void => void Bun.spawnSync(["tar", ...words], { cwd: dir });
    tar("-xf", "../good.vm");
    tar("-cf", "../again.vm", "vm-export.json", "0", "1", "SHA256SUMS");
    tar("-cf", "../dot.vm", ".");
    writeFileSync(join(box.top, "padded.vm"), Buffer.concat([good, Buffer.alloc(9216)]));
    for (const name of ["again", "dot", "padded"])
      await box.ends(
        74,
        ["import", `../${name}.vm`, "../refused"],
        "was packed again",
        "import the original",
      );
  });

  test("whose VM has a name that is no directory's needs DIR, and its name is printed plainly", async () => {
    for (const [name, shown] of [
      ["../../x", "'../../x'"],
      ["/tmp/x", "'/tmp/x'"],
      ["a\u001b[2Jb", "'a?[2Jb'"],
      ["", "has no name"],
    ]) {
      writeFileSync(
        changedFile(),
        forge(
          good,
          (_, content) => content,
          (index) => (index.guest = name),
        ),
      );
      await box.ends(
        74,
        ["import", changedFile()],
        shown!,
        "import ../changed.vm DIR".replace("../changed.vm", changedFile()),
      );
      expect(readdirSync(box.host).toSorted()).toEqual([".work", "backups", "guest.env"]);
      const { stderr } = await box.ok("import", changedFile(), "../named");
      expect(stderr).not.toContain("\u001b[2J");
      rmSync(place(box, "named"), { recursive: true });
    }
  });

  test("whose pipe ends early is not kept, and the hint says so", async () => {
    const cut = join(box.top, "cut-pipe");
    writeFileSync(cut, good.subarray(0, -3000));
    const child = Bun.spawnSync(
      [process.execPath, join(import.meta.dir, "../../src/main.ts"), "import", "-", join(box.top, "piped")],
      { stdin: Bun.file(cut), env: { ...process.env, HOME: box.home, TMPDIR: box.tmp } },
    );
    expect(child.exitCode).toBe(74);
    expect(child.stderr.toString()).toContain("it is truncated\n  send it again; nothing of it is kept");
    expect(existsSync(place(box, "piped"))).toBe(false);
  });
});

function image(...words: string[]): Buffer {
  const path = join(box.top, "image");
  rmSync(path, { force: true });
  qemuImg("create", "-q", ...words.slice(0, -1), path, words.at(-1)!);
  return readFileSync(path);
}

function qcow2(change: (content: Buffer) => void): Buffer {
  const content = image("-f", "qcow2", "1M");
  change(content);
  return content;
}

/** A gz snapshot that was changed by one who knows the format. */
describe("a forged export", () => {
  let good: Buffer;
  beforeAll(async () => {
    await box.ok("export", "S0", "-o", "../gz.vm");
    good = readFileSync(join(box.top, "gz.vm"));
  });

  /** Imports it with another disk, or other values of its manifest. */
  const importWith = (disk: Uint8Array | undefined, change: (file: any) => void = () => {}) => {
    const packed = disk && Bun.gzipSync(new Uint8Array(disk));
    const forged = forge(good, (name, content) => {
      if (name === "disk-0.img.gz" && packed) return Buffer.from(packed);
      if (name !== "manifest.json") return content;
      const manifest = JSON.parse(content.toString());
      const file = manifest.files.find((one: any) => one.name === "disk-0.img");
      if (disk && packed) Object.assign(file, { bytes: disk.length, storedBytes: packed.length });
      change(file);
      return Buffer.from(JSON.stringify(manifest));
    });
    writeFileSync(changedFile(), forged);
    return box.vm("import", changedFile(), "../refused");
  };
  test.each<[string, () => Buffer | undefined, ((file: any) => void) | undefined, string]>([
    [
      "a backing file",
      () => image("-f", "qcow2", "-F", "raw", "-u", "-b", "/etc/passwd", "1M"),
      undefined,
      "backing file",
    ],
    ["a data file", () => qcow2((content) => content.writeUInt8(4, 79)), undefined, "data file"],
    [
      "features of a newer qcow2",
      () => qcow2((content) => content.writeUInt8(0x80, 79)),
      undefined,
      "newer qcow2",
    ],
    [
      "another size than the manifest's",
      () => image("-f", "qcow2", "2M"),
      undefined,
      "holds a disk of 2097152 bytes",
    ],
    ["a vmdk", () => image("-f", "vmdk", "1M"), undefined, "is vmdk, not qcow2"],
    ["a raw disk", () => Buffer.alloc(1 << 20), undefined, "is raw, not qcow2"],
    [
      "an impossible ratio",
      () => undefined,
      (file) => (file.bytes = 2 ** 40),
      "decompress to 1099511627776 bytes",
    ],
    [
      "an impossible virtual size",
      () => undefined,
      (file) => (file.virtualBytes = 1e300),
      "manifest is incomplete",
    ],
  ])("with %s is refused before there is a VM", async (_, disk, change, words) => {
    const { status, stderr } = await importWith(disk(), change);
    expect({ status, stderr }).toMatchObject({ status: 74 });
    expect(stderr).toContain(words);
    expect(stderr).not.toContain("use another snapshot");
    expect(existsSync(place(box, "refused"))).toBe(false);
  });

  test("whose disk only the restore finds to be damaged leaves nothing", async () => {
    const disk = image("-f", "qcow2", "1M");
    const { status } = await importWith(disk, (file) => (file.bytes += 2 ** 32));
    expect(status).toBe(74);
    expect(existsSync(place(box, "refused"))).toBe(false);
  });

  const withSettings = (text: string): Buffer =>
    forge(good, (name, content) =>
      name === "guest.env" ? Buffer.concat([content, Buffer.from(text)]) : content,
    );

  test("with settings that are not allowed is refused, with each of them once", async () => {
    writeFileSync(changedFile(), withSettings("CORES=x\nFORWARDS='junk'\n"));
    const { stderr } = await box.ends(74, ["import", changedFile(), "../refused"], "2 errors");
    for (const name of ["CORES", "FORWARDS"]) expect(stderr.split(name)).toHaveLength(2);
    expect(existsSync(place(box, "refused"))).toBe(false);
  });

  test("that reaches for the host is imported with a warning that names all of it", async () => {
    writeFileSync(
      changedFile(),
      withSettings(
        `ISO=/etc/shadow
KEEPCD=1
FORWARDS='smb=/home,hostfwd=tcp::5555-:22,hostfwd=tcp:127.0.0.1:5556-:22,guestfwd=tcp:10.0.2.100:1-unix:/run/x'
SHARES=('x:rw:/srv' 'y:/etc' 'z:@HOSTDIR@')
SSHKEYS=(/root/k)
NETWORKS=('user' 'bridge=br0')
`,
      ),
    );
    const { stderr } = await box.ends(0, ["import", changedFile(), "../reaching"], "before you run it");
    const expected = [
      "cd /etc/shadow",
      "share /home, writable",
      "port tcp::5555-:22, for other hosts",
      "device unix:/run/x",
      "share /srv, writable",
      "share /etc",
      "network bridge=br0",
      "file /root/k",
    ];
    for (const line of expected) expect(stderr).toContain(`  ${line}\n`);
    expect(stderr).not.toContain("5556");
    const { stdout } = await box.ok("-d", place(box, "reaching"), "status");
    expect(
      stdout
        .match(/^reaches for: +(.*)$/gm)!
        .map((line) => line.replace(/^reaches for: +/, ""))
        .toSorted(),
    ).toEqual(expected.toSorted());
  });
});

/** An archive whose files were changed by one who knows the format: all checksums are right. */
function forge(
  good: Buffer,
  change: (name: string, content: Buffer) => Buffer,
  changeIndex: (index: any) => void = () => {},
): Buffer {
  const { bytes: length } = parseTarHeader(good.subarray(0, 512))!;
  const index = JSON.parse(good.subarray(512, 512 + length).toString());
  changeIndex(index);
  const contents: Buffer[] = [];
  let at = tarLength(length);
  for (const file of index.files) {
    const header = parseTarHeader(good.subarray(at, at + 512))!;
    contents.push(Buffer.from(good.subarray(at + 512, at + 512 + header.bytes)));
    at += tarLength(header.bytes);
    let content = change(file.name, contents.at(-1)!);
    if (file.name === "SHA256SUMS")
      content = Buffer.from(
        content
          .toString()
          .split("\n")
          .map((line) => {
            const name = line.slice(66);
            const known = index.files.findIndex(
              (one: any) => one.snapshot === file.snapshot && one.name === name,
            );
            return known < 0 ? line : `${sha256(contents[known]!)}  ${name}`;
          })
          .join("\n"),
      );
    contents[contents.length - 1] = content;
    file.bytes = content.length;
    file.sha256 = sha256(content);
  }
  const text = Buffer.from(`${JSON.stringify(index, null, 1)}\n`);
  const members: [string, Buffer][] = [
    ["vm-export.json", text],
    ...index.files.map((file: any, number: number) => [`${file.snapshot}/${file.name}`, contents[number]!]),
  ];
  members.push([
    "SHA256SUMS",
    Buffer.from(members.map(([name, content]) => `${sha256(content)}  ${name}\n`).join("")),
  ]);
  const blocks = members.flatMap(([name, content]) => [
    buildTarHeader(name, content.length, 0),
    content,
    Buffer.alloc(tarLength(content.length) - 512 - content.length),
  ]);
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
