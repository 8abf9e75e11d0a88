/**
 * Hostile filesystems in a snapshot: fuzzed superblocks, odd trees, very deep and very large directories. Listed, compared,
 * copied to the host and restored, they harm nothing, and each command ends in bounded time with an honest status.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import { hashTree, readGuestTree } from "./file-faults.ts";
import { must, SoakLab, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, lastLines } from "./soak-speech.ts";
import { configure, listing } from "./tools.ts";

/** How long a command may take by its own time limit, and until it is seen as hanging. */
const LIMIT_SECONDS = 90;
const HANGS_SECONDS = 2 * LIMIT_SECONDS + 60;

/** No such file, no space, a damaged filesystem, the time limit. */
const HONEST: readonly (number | null)[] = [0, 66, 73, 74, 124];

const TREE = String.raw`
rm -rf t; mkdir -p t/etc t/srv/sub; printf 'ID=x\n' >t/etc/os-release; echo '/dev/vda / auto defaults 0 1' >t/etc/fstab
for n in $(seq 20); do head -c 9000 /dev/urandom >"t/srv/sub/$n"; done; echo "$1" >t/srv/one; echo kept >t/etc/kept`;

interface Filesystem {
  make: string;
  /** What is fuzzed: offsets and lengths. */
  regions: readonly (readonly [at: number, length: number])[];
  /** The magic number that blkid looks for: kept in most images. */
  magic: readonly [at: number, length: number];
}

const EXT4 = "rm -f h.raw; mke2fs -q -t ext4 -b 4096 -d t -F h.raw 64M";

const FILESYSTEMS: Readonly<Record<string, Filesystem>> = {
  ext4: {
    make: `${EXT4.replace("-b", "-O ^metadata_csum -b")}`,
    regions: [
      [1024, 1024],
      [4096, 64],
    ],
    magic: [1024 + 0x38, 2],
  },
  xfs: {
    make: String.raw`printf '%s\n' / '0 0' 'd--755 0 0' 'etc d--755 0 0' 'os-release ---644 0 0 t/etc/os-release' 'fstab ---644 0 0 t/etc/fstab' '$' \
      'srv d--755 0 0' 'one ---644 0 0 t/srv/one' '$' '$' >proto; rm -f h.raw; truncate -s 320M h.raw; mkfs.xfs -q -m crc=0 -p proto h.raw`,
    regions: [
      [0, 264],
      [512, 64],
      [1024, 64],
    ],
    magic: [0, 4],
  },
  btrfs: {
    make: "rm -f h.raw; truncate -s 128M h.raw; mkfs.btrfs -q -f --rootdir t h.raw",
    regions: [[65536 + 0x20, 0x300]],
    magic: [65536 + 0x40, 8],
  },
  vfat: {
    make: "rm -f h.raw; truncate -s 64M h.raw; mkfs.vfat h.raw >/dev/null; mcopy -s -i h.raw t/srv ::/srv",
    regions: [
      [0, 96],
      [16384, 64],
    ],
    magic: [510, 2],
  },
};

const ODD_NAMES = String.raw`
cd t/srv; printf x >$'new\nline'; printf x >$'esc\e]0;title\a\e[31m'; printf x >$'bad\xff\xfe'; printf x >-rf; printf x >'*'; printf x >$'\u202e'"gpj.exe"
mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'; if [ "$(id -u)" = 0 ]; then mknod null c 1 3; mknod disk b 254 0; fi
printf x >suid; chmod 6755 suid; ln suid hard; ln -s "$2" out; ln -s / root; ln -s ../../../../../../../../../.. up; ln -s loop loop; mkdir -m 0 closed; truncate -s 256M sparse
mkdir "$(printf 'n%.0s' $(seq 255))"; cd ../..`;

/** Directories in each other, beyond what a path can be: mke2fs cannot copy so many. */
const DEEP = `${EXT4}
{ echo cd srv; for n in $(seq 5000); do echo mkdir d; echo cd d; done; } >nest; debugfs -w -f nest h.raw >nested 2>&1`;

/** What no kernel writes: names with a slash and of dots, a directory in itself, and one of another's blocks. */
const IMPOSSIBLE = String.raw`
printf x >t/srv/slash0name; printf x >t/srv/0Q; mkdir t/srv/below; printf x >t/srv/below/escape0me
${EXT4}
debugfs -w -R 'link srv/sub srv/sub/again' h.raw; debugfs -w -R 'link srv srv/below/up' h.raw
python3 -c '
raw = bytearray(open("h.raw", "rb").read())
for old, new in ((b"slash0name", b"slash/name"), (b"\x02\x010Q", b"\x02\x01.."), (b"escape0me", b"../../0me")):
    at = raw.find(old)
    while at >= 0:
        raw[at:at + len(old)] = new; at = raw.find(old, at + 1)
open("h.raw", "wb").write(raw)'`;

const TREES: Readonly<Record<string, string>> = {
  names: `${ODD_NAMES}; ${EXT4}`,
  deep: DEEP,
  impossible: IMPOSSIBLE,
};

/** For a sample. */
export const HOSTILE_SCENARIOS: readonly string[] = [...Object.keys(FILESYSTEMS), ...Object.keys(TREES)];

class HostileLab implements Disposable {
  readonly canary: string;
  #good: Readonly<Record<string, string>> = {};

  private constructor(readonly lab: SoakLab) {
    this.canary = join(lab.box.top, "canary");
  }

  /** A VM with the snapshot A of a harmless filesystem. */
  static async make(parent?: string): Promise<HostileLab> {
    const lab = SoakLab.empty({ inplace: false }, parent);
    try {
      const { box, store } = lab;
      box.environment.XDG_CACHE_HOME = join(store, "cache");
      const rescue = `RESCUE_MEMORY=512M\nRESCUE_START_TIMEOUT=600\nPROFILES='${join(store, "profiles")}'\n`;
      configure(box, `MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\n${rescue}`);
      await lab.ok(["rescue", "build"]);
      await lab.ok(["create", "G"]);
      const hostile = new HostileLab(lab);
      mkdirSync(hostile.canary);
      writeFileSync(join(hostile.canary, "secret"), "of the host");
      await hostile.shell(`${TREE}; ${EXT4}`);
      hostile.#good = hashTree(join(store, "t"));
      await hostile.use("h.raw");
      await lab.ok(["backup", "A", "--format=gz"]);
      await lab.ok(["snapshots", "ls", "A", "/"]);
      await lab.save("whole");
      return hostile;
    } catch (error) {
      lab[Symbol.dispose]();
      throw error;
    }
  }

  shell(script: string): Promise<string> {
    return must(["bash", "-euc", `cd '${this.lab.store}'; ${script}`, "bash", "good", this.canary]);
  }

  /** Makes a raw image of the store the VM's disk. */
  use(image: string): Promise<string> {
    const disk = join(this.lab.workDir()!, "disk-0.img");
    return must(["qemu-img", "convert", "-O", "qcow2", "-f", "raw", join(this.lab.store, image), disk]);
  }

  /** Does everything with the snapshot H of the image `h.raw`. @returns problems */
  async disturb(): Promise<string[]> {
    const { lab } = this;
    await lab.load("whole");
    const good = join(lab.store, "good.img");
    copyFileSync(join(lab.workDir()!, "disk-0.img"), good);
    const before = listing(this.canary).join("\n");
    await this.use("h.raw");
    await lab.ok(["backup", "H", "--format=qcow2"]);
    const wrong = [
      ...(await this.#attempt(["restore", "A", "--only=/srv"])),
      ...(await this.#attempt(["snapshots", "ls", "H"])),
      ...(await this.#attempt(["snapshots", "ls", "H", "/srv", "--recursive"])),
      ...(await this.#attempt(["snapshots", "diff", "--files", "A", "H"])),
      ...(await this.#attempt(["snapshots", "get", "H", "/srv", "../out"])),
    ];
    copyFileSync(good, join(lab.workDir()!, "disk-0.img"));
    const restored = await lab.run([`--timeout=${LIMIT_SECONDS}`, "restore", "H", "--only=/srv"], {
      seconds: HANGS_SECONDS,
    });
    wrong.push(...this.#judge(restored), ...(await this.#judgeGuest(restored.status === 0)));
    if (listing(this.canary).join("\n") !== before) wrong.push("files of the host have changed");
    const left = lab.leftovers();
    if (left.length > 0) wrong.push(`left over: ${left.join(" ")}`);
    return [...wrong, ...(await this.#judgeCopy()), ...(await lab.quiet())];
  }

  async #attempt(command: readonly string[]): Promise<string[]> {
    const options = { seconds: HANGS_SECONDS };
    return this.#judge(await this.lab.run([`--timeout=${LIMIT_SECONDS}`, ...command], options));
  }

  #judge(ran: Awaited<ReturnType<SoakLab["run"]>>): string[] {
    const wrong = badSpeech(ran);
    const words = ran.argv.slice(1).join(" ");
    if (!ran.hung && !HONEST.includes(ran.status))
      wrong.push(`${words}: status ${ran.status ?? ran.signal}: ${lastLines(ran.stderr)}`);
    if (ran.status !== 0 && !/^\S*vm: /m.test(ran.stderr)) wrong.push(`${words}: says nothing`);
    // oxlint-disable-next-line no-control-regex
    if (/[\x00-\x08\x0b-\x1f\x7f\u202e]/.test(ran.stdout + ran.stderr))
      wrong.push(`${words}: prints control characters`);
    return wrong;
  }

  /** Nothing but `/srv` has changed, and that only if it was restored. */
  async #judgeGuest(restored: boolean): Promise<string[]> {
    const wrong: string[] = [];
    const found = await readGuestTree(this.lab, wrong);
    for (const [path, old] of Object.entries(this.#good))
      if (found[path] !== old && !(restored && path === "/srv"))
        wrong.push(`the guest's ${path} has changed`);
    return wrong;
  }

  /** What `get` has copied has no devices, pipes and sockets, and no setuid bits. */
  async #judgeCopy(): Promise<string[]> {
    const out = join(this.lab.box.top, "out");
    if (!existsSync(out)) return [];
    const special = "( -type b -o -type c -o -type p -o -type s -o -type f -perm /6000 )".split(" ");
    const found = await must(["find", out, "-xdev", ...special]);
    await must(["rm", "-rf", "--", out]);
    return found === "" ? [] : [`copied: ${found.trim().replaceAll("\n", " ")}`];
  }

  [Symbol.dispose](): void {
    this.lab[Symbol.dispose]();
  }
}

/** Random bytes in a filesystem's own regions. */
function fuzz(path: string, { regions, magic }: Filesystem, random: () => number): void {
  const fd = openSync(path, "r+");
  try {
    const kept = Buffer.alloc(magic[1]);
    readSync(fd, kept, 0, kept.length, magic[0]);
    const [at, length] = regions[Math.floor(random() ** 2 * regions.length)]!;
    const count = [1, 2, 8, length][Math.floor(random() * 4)]!;
    for (let turn = 0; turn < count; turn++)
      writeSync(fd, Buffer.from([random() * 256]), 0, 1, at + Math.floor(random() * length));
    if (random() < 0.8) writeSync(fd, kept, 0, kept.length, magic[0]);
    // The checksum of a superblock of btrfs: else it is refused at once.
    if (magic[0] === FILESYSTEMS.btrfs!.magic[0] && random() < 0.8) {
      const block = Buffer.alloc(4096 - 0x20);
      readSync(fd, block, 0, block.length, 65536 + 0x20);
      const sum = Buffer.alloc(4);
      sum.writeUInt32LE(crc32c(block));
      writeSync(fd, sum, 0, 4, 65536);
    }
  } finally {
    closeSync(fd);
  }
}

/** CRC-32C (RFC 3720, B.4). */
function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** So many fuzzed images of each filesystem, and the odd trees. */
export async function sweepHostile(
  { seed, point, parent, wanted }: Omit<SoakSweep, "labs">,
  count: number,
): Promise<void> {
  const names = HOSTILE_SCENARIOS.filter((name) => wanted(`hostile:${name}`));
  if (names.length === 0) return;
  using hostile = await HostileLab.make(parent);
  const { lab } = hostile;
  for (const name of names) {
    const random = seededRandom(seed + HOSTILE_SCENARIOS.indexOf(name));
    const filesystem = FILESYSTEMS[name];
    await hostile.shell(`${TREE}; ${filesystem?.make ?? TREES[name]}`);
    if (!filesystem) {
      point(`hostile:${name}`, await hostile.disturb());
      continue;
    }
    const whole = join(lab.store, "whole.raw");
    rmSync(whole, { force: true });
    await hostile.shell("mv h.raw whole.raw");
    for (let turn = 0; turn < count; turn++) {
      await hostile.shell("cp --sparse=always whole.raw h.raw");
      fuzz(join(lab.store, "h.raw"), filesystem, random);
      point(`hostile:${name}:${turn}`, await hostile.disturb());
    }
  }
}
