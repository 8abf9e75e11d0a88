/** Files of a snapshot, by the real rescue: awkward names, hostile filesystems, LVM and the like. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binary, processesIn, until, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  names,
  sampled,
  sha256,
  shell,
  smallSandbox,
  suite,
  testInTurn,
  typePassphrase,
  untilQuiet,
} from "./tools.ts";

const TREE = String.raw`
mkdir -p t/etc t/srv/sub t/home t/dev t/proc t/sys; printf 'ID=x\n' >t/etc/os-release; echo '/dev/vda / ext4 defaults 0 1' >t/etc/fstab
head -c 1048576 /dev/urandom >t/srv/big; ln -s /etc/os-release t/etc/abs; ln -s ../../../../etc/passwd t/srv/out; ln -s loop t/srv/loop
ln -s loop/../../../etc/passwd t/srv/behind
printf back >'t/srv/new\nline'; touch "t/srv/new
line" t/srv/$'esc\e[31m' t/srv/$'\xff' t/srv/-rf; printf set >t/srv/suid; chmod 4755 t/srv/suid; truncate -s 64M t/srv/sparse
if [ "$(id -u)" = 0 ]; then mknod t/srv/null c 1 3; chown 1000:100 t/home; fi
mkdir t/srv/both; mkfifo t/srv/pipe; echo one >t/srv/one; echo two >t/srv/both/two; ln -s /none/here t/srv/dangling
ln t/srv/one t/srv/hard
mke2fs -q -t ext4 -d t -F root.raw 64M
# Of the user 1234, as setxattr(2) has it (acl_to_xattr(3)).
printf '\2\0\0\0\1\0\6\0\377\377\377\377\2\0\4\0\322\4\0\0\4\0\4\0\377\377\377\377\20\0\4\0\377\377\377\377\40\0\4\0\377\377\377\377' >acl
debugfs -w -R 'ea_set /srv/one user.note kept' root.raw; debugfs -w -R 'ea_set -f acl /srv/one system.posix_acl_access' root.raw
# 123456789 ns after a second.
debugfs -w -R 'sif /srv/big mtime @1000000000' root.raw; debugfs -w -R 'sif /srv/big mtime_extra 493827156' root.raw`;

/** What the guest's filesystem has of `/srv/one`: its links and extended attributes. */
const LOOK = `qemu-img convert -U -O raw "$1" look.raw; e2fsck -E journal_only -fy look.raw || [ $? -le 1 ]
{ debugfs -R 'stat /srv/one' look.raw | grep -o 'Links: [0-9]*'; debugfs -R 'ea_list /srv/one' look.raw | grep '^ '; } | LC_ALL=C sort`;

/** Further filesystems, which a job makes on the second disk. */
const FURTHER: Record<string, string> = {
  xfs: `mkfs.xfs -q /dev/vdb; fs=/dev/vdb`,
  btrfs: `mkfs.btrfs -q /dev/vdb; fs=/dev/vdb`,
  LVM: `modprobe dm_mod; export DM_DISABLE_UDEV=1; lvm pvcreate -q /dev/vdb; lvm vgcreate -q group /dev/vdb
    lvm lvcreate -q -n data -l 100%FREE group; fs=/dev/group/data; mkfs.ext4 -q "$fs"`,
};
const NAMES: Record<string, string> = { xfs: "disk-1", btrfs: "disk-1", LVM: "group-data" };

suite(
  "files of a snapshot",
  () => {
    let box: Sandbox;
    beforeAll(async () => {
      box = smallSandbox();
      configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\nRESCUE_MEMORY=512M\n");
      await box.ok(["rescue", "build"]);
      await box.ok(["create", "G"]);
      await shell(`${TREE}; qemu-img convert -f raw -O qcow2 root.raw "${box.work}/disk-0.img"`, box.top);
      await box.ok(["@backup", "Q", "--format=qcow2", "@backup", "Z", "--format=gz"]);
    });
    afterAll(() => box?.[Symbol.dispose]());

    test("ls: names escaped, in a line each; symlinks are followed as in the guest", async () => {
      const { stdout } = await box.ok(["snapshots", "ls", "Q", "/srv"]);
      const shown = stdout.split("\n").map((line) => line.replace(/^.* \d\d:\d\d {2}/, ""));
      for (const name of [String.raw`new\nline`, String.raw`esc\033[31m`, String.raw`\377`, "-rf", "suid"])
        expect(shown).toContain(name);
      expect(stdout).toMatch(/^-rwsr-xr-x /m);
      expectError(await box.vm(["snapshots", "ls", "Q", "/srv/loop"]), 66, /symbolic links/);
      expectError(
        await box.vm(["snapshots", "ls", "Q", "/srv/out"]),
        66,
        /no such file: \/srv\/out: \/srv\/out is a symlink to \.\.\/\S*, and there is no \/etc\/passwd\n[^]*ls Q \/etc/,
      );
    });

    test("get: of any format, a file and a directory; nothing outside is reached", async () => {
      const { stdout } = await box.ok(["snapshots", "get", "Z", "/etc/abs", "-"]);
      expect(stdout).toBe("ID=x\n");
      await box.ok(["snapshots", "get", "Q", "/srv", "copy"]);
      const copy = box.path("copy");
      expect(sha256(join(copy, "big"))).toBe(sha256(join(box.top, "t/srv/big")));
      expect(lstatSync(join(copy, "big"), { bigint: true }).mtimeNs).toBe(1_000_000_000_123_456_789n);
      expect(lstatSync(join(copy, "suid")).mode & 0o7777).toBe(0o755);
      expect(lstatSync(join(copy, "sparse")).blocks).toBeLessThan(1000);
      expect(readFileSync(join(copy, String.raw`new\nline`), "utf8")).toBe("back");
      expect(readlinkSync(join(copy, "out"))).toBe("../../../../etc/passwd");
      for (const name of ["null", "pipe"]) expect(existsSync(join(copy, name))).toBe(false);
      expect((await box.ok(["snapshots", "get", "Q", "/srv/both", "-"])).stdout).toContain("./both/two\0");
      rmSync(copy, { recursive: true });
      mkdirSync(copy);
      const links = ["/srv/out", "/srv/loop", "/etc/abs"];
      const { stderr } = await box.ok(["snapshots", "get", "Q", ...links, "copy"]);
      expect(stderr).toContain("2 dangling symlinks copied as such");
      expect(["out", "loop"].map((name) => readlinkSync(join(copy, name)))).toEqual([
        "../../../../etc/passwd",
        "loop",
      ]);
      expect(readFileSync(join(copy, "abs"), "utf8")).toBe("ID=x\n");
      expectError(await box.vm(["snapshots", "get", "Q", "/srv/out", "-"]), 66, /is a symlink to/);
      const cut = `"$0" snapshots get Q /srv/big - | head -c 10; exit "\${PIPESTATUS[0]}"`;
      const { status, stderr: said } = await box.vm(["-c", cut, binary], { program: ["bash"] });
      expect([status, said]).toEqual([74, expect.stringContaining("the reader closed the pipe")]);
      rmSync(copy, { recursive: true });
    });

    test("restore --only replaces a directory, and leaves the rest; diff --files shows both", async () => {
      box.write(
        "change.job",
        "mount-system; cd /mnt/system1; rm -r srv/sub srv/big; echo new >srv/new; echo kept >home/kept; chattr +i home/kept\n",
      );
      await box.ok(["@job", "change", "@backup", "C", "--format=qcow2"]);
      const differ = async (to: string): Promise<string[]> =>
        (await box.ok(["snapshots", "diff", "--files", "Q", to])).stdout.trim().split("\n");
      expect(await differ("C")).toEqual(["A  /home/kept", "D  /srv/big", "A  /srv/new", "D  /srv/sub"]);
      const before = sha256(join(box.work, "disk-0.img"));
      const refused = await box.vm(["restore", "-n", "Q", "--only=/srv/one", "--only=/home"]);
      expectError(
        refused,
        74,
        /cannot replace \/home: \/home\/kept is immutable [^]*chattr -i -a \/home\/kept/,
      );
      expect(sha256(join(box.work, "disk-0.img"))).toBe(before);
      await box.ok(["@restore", "Q", "--only=/srv", "@backup", "D", "--format=qcow2"]);
      expect(await differ("D")).toEqual(["A  /home/kept"]);
      const look = async (disk: string): Promise<string> =>
        (await shell(LOOK.replace("$1", disk), box.top)).replace(/^(?!Links|  ).*\n/gm, "");
      expect(await look("root.raw")).toMatch(/posix_acl_access .*[^]*user\.note .*\nLinks: 2\n$/);
      expect(await look(join(box.work, "disk-0.img"))).toBe(await look("root.raw"));
      const { stdout } = await box.ok(["snapshots", "ls", "D", "/srv/suid", "--json"]);
      expect(JSON.parse(stdout)).toMatchObject([{ path: "suid", mode: "4755" }]);
      expectError(await box.vm(["restore", "Q", "--only=/none/x"]), 66, /no such file/);
    });

    testInTurn(1, 4)(
      "mount: read-only, by its own rescue, until it is unmounted; the VM is not locked meanwhile",
      async () => {
        const point = box.path("point");
        mkdirSync(point);
        const mount = box.start(["snapshots", "mount", "Q", "/srv", "point"]);
        await until("it is mounted", () => mount.stderr().includes("is mounted"));
        expect(sha256(join(point, "big"))).toBe(sha256(join(box.top, "t/srv/big")));
        expect(names(point)).toContain("new\nline");
        expect(readlinkSync(join(point, "loop"))).toBe("loop");
        expect(() => writeFileSync(join(point, "x"), "")).toThrow("EROFS");
        expect(readFileSync("/proc/self/mounts", "utf8")).toMatch(/ fuse\S* ro,nosuid,nodev,noexec,/);
        await box.ok(["snapshots", "describe", "Z", "another one"]);
        expectError(
          await box.vm(["snapshots", "describe", "Q", "it"]),
          75,
          /Q is being read by \S*vm snapshots mount Q/,
        );
        await shell(`fusermount3 -u '${point}'`, box.top);
        expect(await mount.done).toMatchObject({ status: 0 });
        const killed = box.start(["snapshots", "mount", "Q", "point"]);
        await until("it is mounted", () => killed.stderr().includes("is mounted"));
        expect(readlinkSync(join(point, "etc/abs"))).toBe("os-release");
        // Of the guest, as all is that symlinks refer to.
        expect(readlinkSync(join(point, "srv/out"))).toBe("../etc/passwd");
        expect(() => readFileSync(join(point, "srv/out"))).toThrow("ENOENT");
        expect(() => readFileSync(join(point, "srv/behind"))).toThrow("EACCES");
        killed.kill("SIGKILL");
        await untilQuiet(box);
        expect(names(point)).toEqual([]);
        const dead = box.start(["snapshots", "mount", "Q", "point"]);
        await until("it is mounted", () => dead.stderr().includes("is mounted"));
        const sshfs = processesIn(box.top).filter((line) => /^\d+ \S*sshfs -f /.test(line));
        expect(sshfs).toHaveLength(1);
        for (const pid of [parseInt(sshfs[0]!, 10), dead.pid]) process.kill(pid, "SIGKILL");
        await untilQuiet(box);
        expect(() => names(point)).toThrow("ENOTCONN");
        expect((await box.vm(["doctor"])).stdout).toMatch(/^mount .*fusermount3 -u -z /m);
        expectError(
          await box.vm(["snapshots", "mount", "none", "point"]),
          66,
          /unmounted \S*point, where an earlier/,
        );
        expect(names(point)).toEqual([]);
        await box.ok(["snapshots", "describe", "Q", "was mounted"]);
        expect(names(box.tmp).filter((name) => name.includes("temporary"))).toEqual([]);
      },
    );

    test("damaged superblocks end in an error, in bounded time", async () => {
      const image = join(box.top, "root.raw");
      const whole = readFileSync(image);
      for (const at of sampled([1024 + 0x18, 1024 + 0x20, 1024 + 0x58, 1024 + 0x60, 4096 + 8], 1, 1)) {
        const bytes = Buffer.from(whole);
        bytes.fill(0xff, at, at + 8);
        await Bun.write(image, bytes);
        await shell(`qemu-img convert -f raw -O qcow2 root.raw "${box.work}/disk-0.img"`, box.top);
        await box.ok(["backup", `bad-${at}`, "--format=gz"]);
        const { status, stderr } = await box.vm(["--timeout=120", "snapshots", "ls", `bad-${at}`, "/"]);
        expect([0, 66, 74, 124]).toContain(status ?? -1);
        expect(stderr).not.toMatch(/internal error/);
      }
      expect(names(box.tmp).filter((name) => name.includes("partial"))).toEqual([]);
    });

    testInTurn(3, 4)("LUKS: opened by a file, and by a passphrase on the terminal", async () => {
      using other = smallSandbox();
      other.environment.XDG_CACHE_HOME = join(box.home, ".cache");
      configure(
        other,
        `MEMORY=64M\nPORT=\nDISKS=(VIRT=16M VIRT=64M)\nRESCUE_MEMORY=512M\nPROFILES="${join(box.home, "vm")}"\n`,
      );
      await other.ok(["create", "G"]);
      other.write(
        "fill.job",
        `modprobe dm_crypt; export DM_DISABLE_UDEV=1; printf secret >/tmp/key
         cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdb /tmp/key
         cryptsetup open --disable-keyring --key-file /tmp/key /dev/vdb new; mkfs.ext4 -q /dev/mapper/new
         mkdir /mnt/new; mount /dev/mapper/new /mnt/new; echo hidden >/mnt/new/data; umount /mnt/new; cryptsetup close new\n`,
      );
      await other.ok(["@job", "fill", "@backup", "S"]);
      expectError(
        await other.vm(["snapshots", "ls", "S"]),
        66,
        /no filesystem recognised: crypto_LUKS on disk-1, nothing known on disk-0\n[^]*--key-file=FILE/,
      );
      other.write("key", "secret\n");
      const { stdout } = await other.ok(["snapshots", "ls", "S", "/", "--key-file=key"]);
      expect(stdout).toMatch(/ data$/m);
      expect(await typePassphrase(other, "snapshots get S /data -", "secret")).toContain("hidden");
      expectError(await other.vm(["snapshots", "ls", "S", "/", "--key-file=none"]), 66, /no such file/);
      other.write("wrong", "other\n");
      expectError(
        await other.vm(["snapshots", "ls", "S", "/", "--key-file=wrong"]),
        66,
        /wrong does not open all LUKS devices/,
      );
    });

    testInTurn(1, 4)("other filesystems, by their names", async () => {
      for (const what of sampled(Object.keys(FURTHER), 0, 1)) {
        using other = smallSandbox();
        other.environment.XDG_CACHE_HOME = join(box.home, ".cache");
        configure(
          other,
          `MEMORY=64M\nPORT=\nDISKS=(VIRT=16M VIRT=320M)\nRESCUE_MEMORY=512M\nPROFILES="${join(box.home, "vm")}"\n`,
        );
        await other.ok(["create", "G"]);
        other.write(
          "fill.job",
          `${FURTHER[what]}\nmkdir /mnt/new; mount "$fs" /mnt/new; echo ${what} >/mnt/new/data\n`,
        );
        await other.ok(["@job", "fill", "@backup", "S"]);
        const { stdout } = await other.ok(["snapshots", "ls", "S"]);
        expect(stdout).toContain(`${NAMES[what]}:/`);
        mkdirSync(other.path("to"));
        await other.ok(["snapshots", "get", "S", `${NAMES[what]}:/data`, "to"]);
        expect(other.read("to/data")).toBe(`${what}\n`);
      }
    });
  },
  ["mke2fs", "sshfs", "fusermount3"],
);
