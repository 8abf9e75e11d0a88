/**
 * Guests of other architectures, emulated by qemu, and their jobs. In a sample one boots, another
 * each day; of all variations each boots from a disk and from a CD, and each has jobs.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { buildForeign, debianOf, unpackDebian, type ForeignArch } from "../guests/foreign.ts";
import { checkout, Sandbox } from "./harness.ts";
import { allVariations, freePort, isTurn, rootTest, sampled, shell, suite, untilQuiet } from "./tools.ts";

const TOOLS = ["mmdebstrap", "sfdisk", "ssh", "ssh-keygen"];
const QEMUS = ["aarch64", "arm", "riscv64", "ppc64"].map((name) => `qemu-system-${name}`);

/** The output of `uname -m` there. */
const MACHINES: Record<ForeignArch, string> = {
  aarch64: "aarch64",
  armhf: "armv7l",
  i386: "i686",
  riscv64: "riscv64",
  ppc64le: "ppc64le",
};

/** They boot by the usual firmware of such machines without an option. */
const GUESTS: [arch: ForeignArch, sample: "disk" | "cd", options: string[]][] = [
  ["aarch64", "cd", []],
  ["armhf", "disk", []],
  ["i386", "disk", ["--uefi"]],
  ["riscv64", "cd", []],
  ["ppc64le", "cd", []],
];

suite(
  "Linux boots, from a disk or a CD, on",
  () => {
    test.each(sampled(GUESTS, 0))("%s", async (arch, sample, more) => {
      const media = await buildForeign(join(checkout, ".cache/guests"), arch);
      const boot = async (medium: "disk" | "cd"): Promise<void> => {
        using box = new Sandbox();
        const options = [`--arch=${arch}`, "--port=", "--memory=512M", ...more];
        const what = medium === "disk" ? `--from=${media.disk}` : media.cd;
        await box.ok([...options, "@create", "G", what, "@run"]);
        expect(box.console()).toContain(`LINUX UP ${MACHINES[arch]}`);
        // It ran without interaction: only its end was observed.
        expect(JSON.parse((await box.ok(["status", "--json"])).stdout)).toMatchObject({
          lastEnd: { end: "powered-off" },
        });
      };
      await Promise.all((allVariations ? (["disk", "cd"] as const) : [sample]).map(boot));
    });
  },
  [...TOOLS, ...QEMUS],
);

/** The system that the rescue is built from, and that the guest has on its disk. */
const PACKAGES = [
  "busybox-static bash coreutils util-linux mount kmod grep sed tar gzip findutils e2fsprogs",
  "openssh-server iproute2 procps",
].flatMap((line) => line.split(" "));

/** On the days without a Debian (debian.test.ts). */
const WITH_JOBS: ForeignArch[] = isTurn(3, 8)
  ? sampled(["aarch64", "armhf", "riscv64", "ppc64le"], 1, 0)
  : [];
for (const arch of WITH_JOBS)
  suite(
    `jobs of a guest of ${arch}`,
    () => {
      let box: Sandbox;
      beforeAll(async () => {
        box = new Sandbox();
        const debian = debianOf(arch);
        const root = join(box.top, "root");
        await unpackDebian(debian, [...PACKAGES, debian.kernel], root);
        await box.ok([`--arch=${arch}`, "rescue", "build", `--root=${root}`]);
        for (const name of ["boot", "lib/modules", "usr/lib/modules", "usr/share"])
          rmSync(join(root, name), { recursive: true, force: true });
        await Bun.write(join(root, "etc/fstab"), "LABEL=root / ext4 defaults 0 1\n");
        await Bun.write(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
        mkdirSync(join(box.home, ".ssh"), { mode: 0o700 });
        await shell(
          `mke2fs -q -t ext4 -L root -d root disk.img 400M
         ssh-keygen -q -t ed25519 -N "" -f home/.ssh/id_ed25519`,
          box.top,
        );
        rmSync(root, { recursive: true, force: true });
        await box.ok([`--arch=${arch}`, "--port=", "@create", "G", `--from=${join(box.top, "disk.img")}`]);
      });
      afterAll(() => box?.[Symbol.dispose]());

      rootTest("post-install in a chroot, then add-ssh-keys", async () => {
        box.write("post-install.sh", `chroot "$DESTDIR" /bin/uname -m >"$OUTDIR/machine"\n`);
        await box.ok(["@job", "post-install"]);
        expect(readFileSync(box.path(".work/.out/machine"), "utf8")).toBe(`${MACHINES[arch]}\n`);
        await box.ok(["@job", "add-ssh-keys"]);
      });

      rootTest("run-ssh: a login, which finds the key that add-ssh-keys stored on the disk", async () => {
        const port = await freePort();
        const running = box.start([`--forward=tcp:127.0.0.1:${port}-:22`, "job", "run-ssh"]);
        const ssh = `ssh -i home/.ssh/id_ed25519 -p ${port} -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null root@127.0.0.1 'uname -m; mount-system >/dev/null; cat /mnt/system1/root/.ssh/authorized_keys'`;
        const machine = await shell(
          `for i in $(seq 60); do ${ssh} 2>/dev/null && break; sleep 1; done`,
          box.top,
        );
        const key = readFileSync(join(box.home, ".ssh/id_ed25519.pub"), "utf8");
        expect(machine).toStartWith(`${MACHINES[arch]}\n`);
        expect(machine).toContain(key.trim());
        rmSync(box.path(".work/.out/RELEASE"));
        expect((await running.done).status).toBe(0);
        await untilQuiet(box);
      });

      test("without another system its rescue cannot be built from this host's programs", async () => {
        const result = await box.vm([`--arch=${arch}`, "rescue", "build"]);
        expect(result.status).toBe(69);
        expect(result.stderr).toContain("--root=DIR");
      });
    },
    [...TOOLS, "qemu-system-aarch64"],
  );
