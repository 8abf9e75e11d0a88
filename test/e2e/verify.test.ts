/** `verify` detects damage, and accepts intact snapshots. */
import { beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { until, type Result, type Sandbox } from "./harness.ts";
import {
  allVariations,
  expectError,
  listing,
  names,
  rootTest,
  shell,
  smallSandbox,
  suite,
  testSampled,
  untilQuiet,
} from "./tools.ts";

interface Report {
  name: string;
  format: string;
  ok: boolean;
  problems: string[];
  notes: string[];
  booted?: string;
}

const SIZE = 16 << 20;

/** A VM that is off, with data on two disks. */
async function filled(): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok(["--disks=AHCI=16M,VIRT=16M", "@create", "G"]);
  await shell(
    `for n in 0 1; do qemu-io -c "write -P 7 1M 2M" -c "write -P $n 5M 1M" disk-$n.img; done`,
    box.work,
  );
  return box;
}

const qemuIo = (box: Sandbox, name: string, write: string): Promise<string> =>
  shell(`for n in 0 1; do qemu-io -c "${write}" "backups/${name}/disk-$n.qcow2"; done`, box.host);

/** A handmade qcow2 snapshot: of the working disks, or incremental on a parent. */
async function makeQcow2(box: Sandbox, name: string, parent?: string): Promise<void> {
  const dir = box.path("backups", name);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (parent === undefined)
    await shell(
      `for n in 0 1; do qemu-img convert -c -O qcow2 ${box.work}/disk-$n.img disk-$n.qcow2; done`,
      dir,
    );
  else {
    await shell(
      `for n in 0 1; do qemu-img create -q -f qcow2 -F qcow2 -b '../${parent}/'disk-$n.qcow2 disk-$n.qcow2; done`,
      dir,
    );
    await qemuIo(box, name, "write -P 9 8M 1M");
  }
  cpSync(join(box.work, "guest.env"), join(dir, "guest.env"));
  writeFileSync(join(dir, "DESCRIPTION"), "by hand\n");
  writeFileSync(join(dir, "TS"), "2026-01-02 03:04:05\n");
  await seal(dir, parent);
}

/** Sets or removes the backing file of a disk. */
const rebase = (dir: string, backing: string, format = "qcow2"): Promise<string> =>
  shell(`qemu-img rebase -u -f qcow2 -F ${format} -b '${backing}' disk-0.qcow2`, dir);

/** Writes manifest and checksums of the present files. */
async function seal(dir: string, parent?: string): Promise<void> {
  const files = names(dir)
    .filter((file) => file.endsWith(".qcow2"))
    .map((file) => ({
      name: file.replace(".qcow2", ".img"),
      file,
      bytes: 1,
      allocatedBytes: 1,
      storedBytes: readFileSync(join(dir, file)).length,
      virtualBytes: SIZE,
    }));
  const facts = { version: 1, format: "qcow2", ...(parent === undefined ? {} : { parent }) };
  const more = {
    tool: "vm 0",
    guest: "G",
    made: new Date().toISOString(),
    consistency: "offline",
    firstTime: false,
  };
  writeFileSync(join(dir, "manifest.json"), JSON.stringify({ ...facts, ...more, files }, null, 2));
  await resum(dir);
}

const resum = (dir: string): Promise<string> =>
  shell("rm -f SHA256SUMS; sha256sum -- * >../sums; mv ../sums SHA256SUMS", dir);

/** Changes one bit. */
function flip(path: string, at: number, bit: number): void {
  const bytes = readFileSync(path);
  bytes[at] = bytes[at]! ^ (1 << bit);
  writeFileSync(path, bytes);
}

const reports = (result: Result): Report[] => JSON.parse(result.stdout) as Report[];

async function inspect(box: Sandbox, args: readonly string[]): Promise<{ result: Result; all: Report[] }> {
  const result = await box.vm(["verify", "--json", ...args]);
  return { result, all: reports(result) };
}

/** Fails with 74 for this reason, naming the snapshot; nothing is changed. */
async function bad(
  box: Sandbox,
  name: string,
  reason: RegExp,
  options: readonly string[] = [],
): Promise<void> {
  const before = listing(box.top);
  const { result, all } = await inspect(box, [...options, name]);
  const report = all.find((item) => item.name === name)!;
  expect(report.problems.join("\n")).toMatch(reason);
  expect(report.ok).toBe(false);
  expect(result.status).toBe(74);
  expect(result.stderr).toMatch(new RegExp(`bad: .*${name}`));
  expect(listing(box.top)).toEqual(before);
}

/** Prints a word on the first serial port, and halts. */
const bootSector = (word: string): string => `bits 16
org 0x7c00
 xor ax, ax
 mov ds, ax
 mov dx, 0x3fd
 mov si, text
next: lodsb
 test al, al
 jz hang
 mov ah, al
full: in al, dx
 test al, 0x20
 jz full
 mov al, ah
 mov dx, 0x3f8
 out dx, al
 mov dx, 0x3fd
 jmp next
hang: hlt
 jmp hang
text: db 13, 10, \`${word}\`, 0
times 510-($-$$) db 0
dw 0xaa55
`;

/** A VM whose guest prints a text, and keeps running. */
async function talking(word: string): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok(["create", "G"]);
  writeFileSync(join(box.work, "boot.asm"), bootSector(word));
  await shell(
    `nasm -f bin -o boot.bin boot.asm; truncate -s 16M boot.bin
     qemu-img convert -f raw -O qcow2 boot.bin disk-0.img; rm boot.*`,
    box.work,
  );
  return box;
}

suite(
  "verify",
  () => {
    test("a good one: one line, status 0, no change", async () => {
      using box = await filled();
      await box.ok(["backup"]);
      const before = listing(box.top);
      for (const options of [[], ["--deep"], ["S0"], ["LAST"], ["--all"]]) {
        const { stdout } = await box.ok(["verify", ...options]);
        expect(stdout).toMatch(/^S0: good, gz, \d.* KiB, .* s\n$/);
      }
      expect(listing(box.top)).toEqual(before);
    });

    test("checks the last one unless others are named; --all checks all", async () => {
      using box = await filled();
      await box.ok(["@backup", "@backup", "@backup"]);
      const looked = async (...args: string[]): Promise<string> =>
        (await inspect(box, args)).all.map(({ name }) => name).join(" ");
      expect(await looked()).toBe("S2");
      expect(await looked("S1", "S0", "S1")).toBe("S1 S0");
      expect(await looked("--all")).toBe("S0 S1 S2");
      rmSync(box.path("backups/S1/TS"));
      const { result, all } = await inspect(box, ["--all"]);
      expect(result.status).toBe(74);
      expect(all.map(({ ok }) => ok)).toEqual([true, false, true]);
      expectError(await box.vm(["verify", "S7"]), 66, /no such snapshot/);
      expectError(await box.vm(["verify", "--all", "S1"]), 64, /either/);
      expectError(await box.vm(["verify", "--timeout=3"]), 64, /--boot/);
      expectError(await box.vm(["verify", "--boot", "--boot-wait=("]), 64, /regular expression/);
    });

    test("without snapshots: 66", async () => {
      using box = smallSandbox();
      await box.ok(["create", "G"]);
      for (const options of [[], ["--all"]])
        expectError(await box.vm(["verify", ...options]), 66, /no snapshots/);
    });

    test("needs the VM's lock to boot only: waits for it, and exits with 75", async () => {
      using box = await filled();
      await box.ok(["backup"]);
      const holder = Bun.spawn(["flock", "-F", box.host, "sleep", "30"]);
      await until(
        "the lock",
        async () => (await Bun.$`flock -n ${box.host} true`.nothrow().quiet()).exitCode !== 0,
      );
      await box.ok(["verify"]);
      expectError(await box.vm(["verify", "--boot"]), 75, /locked by another process: .*sleep 30/);
      holder.kill();
    });

    describe.each(["gz", "qcow2"])("%s:", (format) => {
      const disk = format === "gz" ? "disk-1.img.gz" : "disk-1.qcow2";
      const files = ["DESCRIPTION", "SHA256SUMS", "TS", disk, "guest.env", "manifest.json"];
      let box: Sandbox;
      beforeAll(async () => {
        box = await filled();
        if (format === "gz") await box.ok(["backup", "good", "a few words"]);
        else await makeQcow2(box, "good");
        return () => box[Symbol.dispose]();
      });

      /** A damaged copy of the good one; removed afterwards. */
      async function spoilt(
        spoil: (dir: string) => unknown,
        reason: RegExp,
        options: readonly string[] = [],
      ) {
        const dir = box.path("backups/spoilt");
        cpSync(box.path("backups/good"), dir, { recursive: true });
        try {
          await spoil(dir);
          await bad(box, "spoilt", reason, options);
        } finally {
          rmSync(dir, { recursive: true });
        }
      }

      test("detects one flipped bit anywhere", async () => {
        const copies: string[] = [];
        for (const file of files) {
          const { length } = readFileSync(box.path("backups/good", file));
          // Every kind of bit in the checksums: a letter may become a capital, and a digit a comment.
          const count = (file === "SHA256SUMS" ? 8 : 2) * (allVariations ? 5 : 1);
          for (let index = 0; index < count; index++) {
            const copy = `flip-${file}-${index}`;
            copies.push(copy);
            cpSync(box.path("backups/good"), box.path("backups", copy), { recursive: true });
            flip(
              box.path("backups", copy, file),
              Math.floor((index * (length - 1)) / (count - 1)),
              index % 8,
            );
          }
        }
        const { result, all } = await inspect(box, ["--all"]);
        expect(result.status).toBe(74);
        expect(
          all
            .filter(({ ok }) => !ok)
            .map(({ name }) => name)
            .toSorted(),
        ).toEqual(copies.toSorted());
        for (const copy of copies) rmSync(box.path("backups", copy), { recursive: true });
      });

      testSampled(
        {
          "detects an uppercase letter in a checksum": () =>
            spoilt((dir) => {
              const path = join(dir, "SHA256SUMS");
              flip(path, readFileSync(path, "utf8").search(/[a-f]/), 5);
            }, /not a line of sha256sum/),
          "a symlink instead of a file": () =>
            spoilt((dir) => {
              rmSync(join(dir, disk));
              symlinkSync(`../good/${disk}`, join(dir, disk));
            }, /no regular file/),
          "an additional disk": () =>
            spoilt(
              (dir) => cpSync(join(dir, disk), join(dir, disk.replace("1", "2"))),
              /not one of its files/,
            ),
          "additional settings": () =>
            spoilt(
              (dir) => writeFileSync(join(dir, "vm.defaults"), "-snapshot\n"),
              /does not name vm\.defaults/,
            ),
          "a missing disk of guest.env": () =>
            spoilt(async (dir) => {
              appendFileSync(join(dir, "guest.env"), 'IMAGES=( "AHCI=disk-0.img" "AHCI=disk-7.img" )\n');
              await resum(dir);
            }, /disk-7\.img/),
          ...Object.fromEntries(
            files.flatMap((file) => [
              [
                `${file} truncated`,
                () =>
                  spoilt(
                    (dir) => truncateSync(join(dir, file), readFileSync(join(dir, file)).length - 1),
                    /./,
                  ),
              ],
              [
                `${file} missing`,
                () => spoilt((dir) => rmSync(join(dir, file)), /missing|no manifest|does not/),
              ],
            ]),
          ),
        },
        1,
        3,
      );
      test("ignores additional files, and PROTECTED", async () => {
        writeFileSync(box.path("backups/good/notes.txt"), "x");
        writeFileSync(box.path("backups/good/PROTECTED"), "");
        const { result, all } = await inspect(box, ["good"]);
        expect(result.status).toBe(0);
        expect(all[0]!.notes).toEqual(["notes.txt was added later"]);
        rmSync(box.path("backups/good/notes.txt"));
      });
      test("the good one is still good", async () => {
        await box.ok(["verify", "good"]);
        await box.ok(["verify", "good", "--deep"]);
      });
    });

    describe("gz, with valid checksums:", () => {
      let box: Sandbox;
      beforeAll(async () => {
        box = await filled();
        await box.ok(["backup", "good"]);
        return () => box[Symbol.dispose]();
      });

      async function sealed(script: string, reason: RegExp, options: readonly string[] = []): Promise<void> {
        const dir = box.path("backups/spoilt");
        cpSync(box.path("backups/good"), dir, { recursive: true });
        await shell(script, dir);
        await shell(
          `size=$(stat -c %s disk-0.img.gz); jq ".files[0].storedBytes=$size" manifest.json >../m; mv ../m manifest.json`,
          dir,
        );
        await resum(dir);
        await bad(box, "spoilt", reason, options);
        expect(names(box.tmp)).toHaveLength(1);
        rmSync(dir, { recursive: true });
      }

      testSampled(
        {
          "not a gzip file": () =>
            sealed("echo garbage, and more of it >disk-0.img.gz", /not an intact gzip file/),
          "data after its end": () =>
            sealed("echo more >>disk-0.img.gz", /not an intact gzip file|does not decompress to/),
          "of another length": () =>
            sealed("gunzip disk-0.img; echo x >>disk-0.img; gzip disk-0.img", /does not decompress to/),
          "--deep: a corrupt image": () =>
            sealed(
              // The first L1 entry points nowhere.
              `gunzip disk-0.img; printf '\\377\\377' | dd of=disk-0.img bs=1 seek=196614 conv=notrunc status=none; gzip disk-0.img`,
              /is corrupt|cannot be read|not a readable qcow2/,
              ["--deep"],
            ),
          "--deep: an image of another size": () =>
            sealed(
              "gunzip disk-0.img; qemu-img resize -q disk-0.img 32M; gzip disk-0.img",
              /instead of 16777216/,
              ["--deep"],
            ),
          "--deep: an image with an external backing file": () =>
            sealed(
              "rm disk-0.img.gz; qemu-img create -q -f qcow2 -b /etc/hostname -F raw disk-0.img 16M; gzip disk-0.img",
              /external backing file/,
              ["--deep"],
            ),
        },
        0,
        2,
      );
      rootTest("--deep without space fails: 73", async () => {
        const mount = join(box.top, "small");
        mkdirSync(mount);
        await Bun.$`mount -t tmpfs -o size=64k none ${mount}`.quiet();
        try {
          const result = await box.vm(["verify", "good", "--deep"], { env: { TMPDIR: mount } });
          expectError(result, 73, /no (room|space)/);
        } finally {
          await Bun.$`umount ${mount}`.quiet();
        }
      });
    });

    test("of the earlier program: checks what it can, and reports the rest", async () => {
      using box = await filled();
      await box.ok(["backup"]);
      const dir = box.path("backups/S0");
      for (const name of ["SHA256SUMS", "manifest.json"]) rmSync(join(dir, name));
      const { result, all } = await inspect(box, []);
      expect(result.status).toBe(0);
      expect(all[0]).toMatchObject({ format: "earlier", notes: [expect.stringContaining("no checksums")] });
      await box.ok(["verify", "--deep"]);
      const path = join(dir, "disk-1.img.gz");
      const good = readFileSync(path);
      flip(path, good.length >> 1, 3);
      await bad(box, "S0", /not an intact gzip file/);
      writeFileSync(path, good.subarray(0, good.length - 20));
      await bad(box, "S0", /not an intact gzip file/);
      rmSync(path);
      await bad(box, "S0", /disk-1\.img, named in guest\.env/);
      rmSync(join(dir, "guest.env"));
      await bad(box, "S0", /guest\.env is missing/);
    });

    describe("incremental qcow2:", () => {
      let box: Sandbox;
      beforeAll(async () => {
        box = await filled();
        await makeQcow2(box, "a");
        await makeQcow2(box, "b:é x", "a");
        await makeQcow2(box, "c", "b:é x");
        return () => box[Symbol.dispose]();
      });

      async function spoilt(
        spoil: (dir: string) => unknown,
        reason: RegExp,
        parent = "b:é x",
      ): Promise<void> {
        const dir = box.path("backups/spoilt");
        cpSync(box.path("backups/c"), dir, { recursive: true });
        try {
          await spoil(dir);
          await seal(dir, parent);
          await bad(box, "spoilt", reason);
        } finally {
          rmSync(dir, { recursive: true });
        }
      }

      test("checks all its parents, the oldest first", async () => {
        const { result, all } = await inspect(box, ["c"]);
        expect(result.stderr).not.toMatch(/bad/);
        expect(all.map(({ name, ok }) => [name, ok])).toEqual([
          ["a", true],
          ["b:é x", true],
          ["c", true],
        ]);
        await box.ok(["verify", "--all", "--deep"]);
      });

      test("a bad one makes its children bad", async () => {
        const path = box.path("backups/a/disk-0.qcow2");
        const good = readFileSync(path);
        flip(path, good.length >> 1, 0);
        const { result, all } = await inspect(box, ["c"]);
        expect(result.status).toBe(74);
        expect(all[0]!.problems).toEqual(["disk-0.qcow2: its checksum is wrong"]);
        expect(all[1]!.problems).toEqual(["its parent a is bad"]);
        expect(all[2]!.problems).toEqual(["its parent b:é x is bad"]);
        writeFileSync(path, good);
      });

      test("a missing parent", async () => {
        await shell("mv a hidden-a", box.path("backups"));
        await bad(box, "c", /its parent b:é x is bad/);
        await bad(box, "b:é x", /its parent "a" is missing/);
        await shell("mv hidden-a a", box.path("backups"));
      });

      test("a cycle", async () => {
        cpSync(box.path("backups/a"), box.path("backups/kept"), { recursive: true });
        await rebase(box.path("backups/a"), "../c/disk-0.qcow2");
        await seal(box.path("backups/a"), "c");
        await bad(box, "c", /cycle|its parent/);
        await shell("rm -r a; mv kept a", box.path("backups"));
        await box.ok(["verify", "c"]);
      });

      testSampled(
        {
          ...Object.fromEntries(
            [
              ["/etc/hostname", "raw"],
              ["../../../../etc/hostname", "raw"],
              ["../a/disk-0.qcow2", "qcow2"],
              ["../b:é x/disk-1.qcow2", "qcow2"],
              ["../b:é x/../a/disk-0.qcow2", "qcow2"],
              [`json:{"driver":"null-co"}`, "qcow2"],
            ].map(([backing, format]) => [
              `a backing file ${backing}`,
              () => spoilt((dir) => rebase(dir, backing!, format), /refers to .* instead of/),
            ]),
          ),
          "a backing file of another format": () =>
            spoilt((dir) => rebase(dir, "../b:é x/disk-0.qcow2", "raw"), /of format raw/),
          "no backing file": () => spoilt((dir) => rebase(dir, ""), /has no backing file in its parent/),
          "an invalid name of the parent": () => spoilt(() => {}, /no snapshot's name/, "../b:é x"),
          "another size than the parent's": () =>
            spoilt((dir) => shell("qemu-img resize -q disk-0.qcow2 32M", dir), /instead of 16777216|one of/),
          "an external data file": () =>
            spoilt(
              (dir) =>
                shell(
                  "rm disk-0.qcow2; qemu-img create -q -f qcow2 -o data_file=x.raw disk-0.qcow2 16M",
                  dir,
                ),
              /external data file/,
            ),
          "a corrupt image with valid checksums": () =>
            spoilt(
              (dir) =>
                shell(
                  "printf '\\377\\377' | dd of=disk-0.qcow2 bs=1 seek=196614 conv=notrunc status=none",
                  dir,
                ),
              /is corrupt|not a readable qcow2/,
            ),
        },
        1,
        3,
      );

      test("leaked clusters are harmless", async () => {
        const dir = box.path("backups/leaky");
        cpSync(box.path("backups/a"), dir, { recursive: true });
        // A cluster at the end that counts as used: refcount table 1, block 2, little-endian.
        await shell(
          `size=$(stat -c %s disk-0.qcow2); size=$(((size + 65535) / 65536 * 65536)); truncate -s $((size + 65536)) disk-0.qcow2
           printf '\\0\\1' | dd of=disk-0.qcow2 bs=1 seek=$((131072 + size / 65536 * 2)) conv=notrunc status=none
           qemu-img check disk-0.qcow2 >/dev/null && exit 1 || [ $? = 3 ]`,
          dir,
        );
        await seal(dir);
        const { result, all } = await inspect(box, ["leaky"]);
        expect(result.status).toBe(0);
        expect(all[0]!.notes).toEqual([expect.stringContaining("harmless")]);
        rmSync(dir, { recursive: true });
      });

      test("--deep: compressed clusters that cannot be decompressed", async () => {
        const dir = box.path("backups/squashed");
        cpSync(box.path("backups/a"), dir, { recursive: true });
        // Compressed data is after the tables; a cluster's worth is overwritten.
        await shell(
          `at=$(qemu-img map --output=json disk-0.qcow2 >/dev/null; echo 327680)
           dd if=/dev/zero of=disk-0.qcow2 bs=1 seek=$at count=64 conv=notrunc status=none`,
          dir,
        );
        await seal(dir);
        await bad(box, "squashed", /cannot be read completely/, ["--deep"]);
        rmSync(dir, { recursive: true });
      });
    });

    describe("--boot:", () => {
      test.each(["gz", "qcow2"])("%s: until a login prompt; leaves and changes nothing", async (format) => {
        using box = await talking("debian login: ");
        if (format === "gz") await box.ok(["backup"]);
        else {
          const dir = box.path("backups/S0");
          mkdirSync(dir, { recursive: true, mode: 0o700 });
          await shell(
            `qemu-img convert -c -O qcow2 ${box.work}/disk-0.img disk-0.qcow2; cp ${box.work}/guest.env .`,
            dir,
          );
          await seal(dir);
        }
        const all = (): string[] => listing(box.top).filter((line) => !line.includes("home/.cache"));
        const before = all();
        const { stdout } = await box.ok(["verify", "--boot"]);
        expect(stdout).toMatch(/^S0: good, .*, boots \(login prompt\)\n$/);
        expect(all()).toEqual(before);
        expect(await box.leftovers()).toEqual([]);
      });

      test("until a match of --boot-wait; on timeout 124, with the last line", async () => {
        using box = await talking("Ready to serve.\\nno more");
        await box.ok(["backup"]);
        await box.ok(["verify", "--boot", "--boot-wait=^Ready to"]);
        const result = await box.vm(["verify", "--boot", "--timeout=4"]);
        expect(result.stdout).toMatch(
          /did not boot within 4 seconds; last line of its serial console: no more/,
        );
        expect(result.status).toBe(124);
        expect(names(box.tmp)).toHaveLength(1);
        expect(await box.leftovers()).toEqual([]);
      });

      test("SIGTERM ends it at once, and leaves nothing", async () => {
        using box = await talking("nothing");
        await box.ok(["backup"]);
        const run = box.start(["verify", "--boot"]);
        await until("qemu", async () => (await box.leftovers()).some((line) => line.includes("qemu-system")));
        run.kill("SIGTERM");
        expectError(await run.done, 143, /SIGTERM/);
        expect(names(box.tmp)).toHaveLength(1);
        expect(await box.leftovers()).toEqual([]);
      });

      test("after kill -9 the next command cleans up", async () => {
        using box = await talking("nothing");
        await box.ok(["backup"]);
        const run = box.start(["verify", "--boot"]);
        await until("qemu", async () => (await box.leftovers()).some((line) => line.includes("qemu-system")));
        run.kill("SIGKILL");
        await run.done;
        await untilQuiet(box);
        expect(names(box.tmp)).toHaveLength(2);
        await box.ok(["backup"]);
        expect(names(box.tmp)).toHaveLength(1);
      });

      test("does not boot a bad one", async () => {
        using box = await talking("debian login: ");
        await box.ok(["backup"]);
        rmSync(box.path("backups/S0/TS"));
        const result = await box.vm(["verify", "--boot"]);
        expect(result.status).toBe(74);
        expect(result.stdout).not.toContain("boots");
      });
    });
  },
  ["flock", "gunzip", "gzip", "jq", "qemu-io", "sha256sum"],
);
