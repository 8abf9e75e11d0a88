/** Clones with real images: contents, speed, kills. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binary, type Sandbox } from "./harness.ts";
import { content, filled, io } from "./images.ts";
import {
  allVariations,
  configure,
  expectError,
  rootTest,
  sampled,
  seed,
  smallSandbox,
  suite,
  testInTurn,
} from "./tools.ts";
import { seededRandom } from "./faults-lab.ts";

const place = (box: Sandbox, name: string): string => join(box.top, name);
const diskOf = (box: Sandbox, name: string): string => join(place(box, name), ".work/disk-0.img");

const MACHINE_ID = "0123456789abcdef0123456789abcdef";

/** Jobs that make an installed system, and print its identity. */
const FILL = `
mkfs.ext4 -q /dev/vda; mkdir /mnt/new; mount /dev/vda /mnt/new
mkdir -p /mnt/new/etc/ssh /mnt/new/bin /mnt/new/sbin /mnt/new/usr /mnt/new/root
echo golden >/mnt/new/etc/hostname; echo "127.0.1.1 golden" >/mnt/new/etc/hosts
echo "/dev/vda / ext4 defaults 0 1" >/mnt/new/etc/fstab
echo ${MACHINE_ID} >/mnt/new/etc/machine-id
ssh-keygen -q -t ed25519 -N '' -f /mnt/new/etc/ssh/ssh_host_ed25519_key
umount /mnt/new
`;
const LOOK = `
mount-system || fatal 'cannot mount'
cd /mnt/system1/etc; cat hostname hosts machine-id ssh/ssh_host_ed25519_key.pub >"$OUTDIR/identity"
`;

/** What the job `look` has found. */
const identityIn = (directory: string): string[] =>
  readFileSync(join(directory, ".work/.out/identity"), "utf8").split("\n");

/** A template with 16 MiB of data in a snapshot, and the checksum of its disk. */
async function template(): Promise<{ box: Sandbox; sum: string }> {
  const box = await filled();
  await box.ok(["@backup", "S1", "@set", "TEMPLATE=yes"]);
  return { box, sum: await content(box) };
}

suite(
  "clones",
  () => {
    test("eight linked ones have the template's data, and write to files of their own", async () => {
      const { box, sum } = await template();
      using _box = box;
      await box.ok(["clone", "--keep-guest", "--linked", "--count=8", "../web"]);
      await io(diskOf(box, "web3"), "write -P 7 1M 1M");
      const changed = await content(box, diskOf(box, "web3"));
      expect(changed).not.toBe(sum);
      for (const name of ["web1", "web8"]) expect(await content(box, diskOf(box, name))).toBe(sum);
      expect(await content(box)).toBe(sum);
      await box.ok(["verify", "S1"]);
      // Two at once, on the same backing file.
      for (const name of ["web1", "web3"]) await box.ok(["-d", place(box, name), "run", "--detach"]);
      await box.ok(["-d", place(box, "web3"), "backup", "live"]);
      for (const name of ["web1", "web3"]) await box.ok(["-d", place(box, name), "stop", "--force"]);
      await box.ok(["-d", place(box, "web3"), "restore", "--copy", "live"]);
      expect(await content(box, diskOf(box, "web3"))).toBe(changed);
    });

    testInTurn(1, 8)("the guest of a clone gets an identity of its own, by the job", async () => {
      using box = smallSandbox();
      configure(
        box,
        `PROFILES="${join(box.top, "profiles")}"\nPORT=\nDISKS=(VIRT=64M)\nRESCUE_START_TIMEOUT=600\n`,
      );
      await box.ok(["rescue", "build"]);
      await box.ok(["create", "G"]);
      box.write("fill.job", FILL);
      await box.ok(["job", "fill"]);
      await box.ok(["clone", "../mail1"]);
      for (const directory of [box.host, place(box, "mail1")]) {
        writeFileSync(join(directory, "look.job"), LOOK);
        await box.ok(["-d", directory, "job", "look"]);
      }
      const [original, clone] = [identityIn(box.host), identityIn(place(box, "mail1"))];
      expect(original.slice(0, 3)).toEqual(["golden", "127.0.1.1 golden", MACHINE_ID]);
      expect(clone.slice(0, 2)).toEqual(["mail1", "127.0.1.1\tmail1"]);
      expect(clone[2]).toMatch(/^[0-9a-f]{32}$/);
      expect(clone[3]).toStartWith("ssh-ed25519 ");
      for (const line of [2, 3]) expect(clone[line]).not.toBe(original[line]!);
    });

    // Killed, then done again, with nothing cleaned up by hand. One of them a day: each takes 15 s.
    test.each(sampled(["full", "linked", "inplace", "snapshot"], 0, 1))(
      "kill -9 at any time: %s",
      async (kind) => {
        const { box, sum } = await template();
        using _box = box;
        const words = [
          ...(kind === "inplace" ? ["--inplace"] : []),
          "clone",
          "--keep-guest",
          ...(kind === "linked" ? ["--linked"] : []),
          ...(kind === "snapshot" ? ["S1"] : []),
          "../web",
        ];
        const began = performance.now();
        await box.ok(words);
        const whole = performance.now() - began;
        await box.ok(["-d", place(box, "web"), "destroy"]);
        await Bun.$`rm -rf ${place(box, "web")}`.quiet();
        const random = seededRandom(seed);
        for (let turn = 0; turn < (allVariations ? 20 : 4); turn++) {
          const running = box.start(words);
          await Bun.sleep(random() * whole * 1.1);
          running.kill("SIGKILL");
          const { status } = await running.done;
          // Complete, but not moved into place: any command that changes the VM does that.
          if (existsSync(join(place(box, "web"), ".vm-ready")))
            await box.ok(["-d", place(box, "web"), "set", "CORES=1"]);
          const made = existsSync(join(place(box, "web"), ".work"));
          if (status === 0) expect(made).toBe(true);
          const shown = await box.vm(["-d", place(box, "web"), "status"]);
          if (made) expect(await content(box, diskOf(box, "web"))).toBe(sum);
          else expect(shown.stdout + shown.stderr).toMatch(/no VM in|no such directory/);
          // The original is as before, whatever happened.
          await box.ok(["@verify", "S1", "@status"]);
          expect(await content(box)).toBe(sum);
          if (made) await box.ok(["-d", place(box, "web"), "destroy"]);
          await Bun.$`rm -f ${place(box, "web")}/guest.env ${place(box, "web")}/.vm-lock`.quiet();
          await box.ok(words);
          expect(await content(box, diskOf(box, "web"))).toBe(sum);
          await box.ok(["-d", place(box, "web"), "destroy"]);
          await Bun.$`rm -rf ${place(box, "web")}`.quiet();
        }
        // Of all of them, only the template's own working files are left.
        const own = box.work;
        expect(
          readdirSync(join(box.top, "tmp")).filter((name) => name.startsWith("vm-") && !own.endsWith(name)),
        ).toEqual([]);
        await box.ok(["snapshots", "rm", "S1"]);
      },
    );

    test("kill -9 at any time of rename leaves the VM in one place, and its linked clone whole", async () => {
      const { box, sum } = await template();
      using _box = box;
      await box.ok(["clone", "--keep-guest", "S1", "../a"]);
      await box.ok(["-d", place(box, "a"), "backup", "S2"]);
      await box.ok(["-d", place(box, "a"), "clone", "--keep-guest", "--linked", "S2", "../web"]);
      const random = seededRandom(seed);
      let here = "a";
      for (let turn = 0; turn < (allVariations ? 20 : 6); turn++) {
        const running = box.start(["-d", place(box, here), "rename", here === "a" ? "b" : "a"]);
        await Bun.sleep(random() * 300);
        running.kill("SIGKILL");
        await running.done;
        const found = ["a", "b"].filter((name) => existsSync(place(box, name)));
        expect(found).toHaveLength(1);
        here = found[0]!;
        await box.ok(["-d", place(box, here), "set", `CORES=${1 + (turn % 2)}`]);
        const status = JSON.parse((await box.ok(["-d", place(box, here), "status", "--json"])).stdout);
        expect([status.name, status.clones[0].missing]).toEqual([here, false]);
        expect(await content(box, diskOf(box, here))).toBe(sum);
        expect(await content(box, diskOf(box, "web"))).toBe(sum);
        await box.ok(["-d", place(box, here), "rename", here]);
      }
    });

    // TMPDIR is a filesystem of this size, in a mount namespace of its own.
    rootTest("a full disk leaves no clone and no record of one", async () => {
      const { box } = await template();
      using _box = box;
      const small = join(box.top, "small");
      mkdirSync(small, { mode: 0o700 });
      const inSmall = 'mount -t tmpfs -o mode=700,size="$1" none "$TMPDIR" || exit 99; shift; exec "$@"';
      for (const [size, words] of [
        ["16k", ["--linked"]],
        ["100k", ["--linked"]],
        ["8m", []],
        ["8m", ["S1"]],
      ] as const)
        expectError(
          await box.vm(["clone", "--keep-guest", ...words, "../web"], {
            program: ["unshare", "--mount", "sh", "-c", inSmall, "sh", size, binary],
            env: { TMPDIR: small },
          }),
          73,
          /no space/i,
        );
      expect(existsSync(place(box, "web"))).toBe(false);
      await box.ok(["snapshots", "rm", "S1"]);
    });
  },
  ["qemu-io", "sha256sum"],
);
