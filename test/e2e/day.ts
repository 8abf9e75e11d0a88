/**
 * A day of hourly live snapshots in fast motion: a busy Debian writes numbered, checksummed records to two disks
 * during one snapshot after the other; each must restore, boot, pass fsck, and contain a prefix of the records.
 */
import { chmodSync, copyFileSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { checkout, Sandbox, until } from "./harness.ts";
import { configure, debianCache, qemuPid, shell, untilQuiet } from "./tools.ts";

/** One hour's snapshot, with the guest's console output. */
export interface Hour {
  name: string;
  consistency: string;
  /** Records acknowledged by the guest before the command, and afterwards. */
  before: number;
  after: number;
  storedBytes: number;
  seconds: number;
  /** The longest sleep of a program in the guest instead of 10 ms, during the snapshot. */
  stallMs: number;
  /** How much less time passed in the guest than here: the pause, by its own clock. */
  lagMs: number;
}

/** Writes a record to each disk in turn, each synced; prints the records found at the start, and acknowledged ones. */
const WRITER = String.raw`#!/usr/bin/perl
use strict; use warnings; use IO::Handle;
my @paths = ('/data/records', '/var/records');
my $size = 64;
sub record { my ($n) = @_; my $text = sprintf('%08d %s', $n, substr('the quick brown fox jumps over it' x 2, $n % 20, 40)); return sprintf("%s %05d\n", $text . ' ' x (57 - length $text), unpack('%16C*', $text)); }
# Opened each time: who logs in there hangs up on the others.
sub tell_host { open(my $tty, '>', '/dev/ttyS0') or return; print $tty "\r\nday: $_[0]\r\n"; close $tty }
my @counts;
for my $path (@paths) {
  my $count = 0; my $state = 'whole';
  if (open(my $in, '<', $path)) {
    while (read($in, my $line, $size)) { if ($line ne record($count + 1)) { $state = 'SPOILT'; last } $count++; }
  }
  push @counts, "$count $state";
}
tell_host("found $counts[0] and $counts[1]");
my ($n) = $counts[0] =~ /^(\d+)/;
my ($m) = $counts[1] =~ /^(\d+)/;
my @out = map { open(my $out, '>>', $_) or die; $out->autoflush(1); $out } @paths;
if ($m < $n) { print { $out[1] } record($n); $out[1]->sync; }
for (;;) {
  $n++;
  for my $out (@out) { print $out record($n); $out->sync or die "sync: $!"; }
  if ($n % 5 == 0) { open(my $in, '<', '/proc/uptime'); my ($up) = split ' ', <$in>; tell_host("safe $n"); tell_host("up $up"); }
}
`;

/** Creates and removes files, to overwrite clusters everywhere. */
const BUSY = String.raw`#!/bin/sh
i=0
while :; do
  i=$(( (i + 1) % 6 ))
  dd if=/dev/urandom of=/var/tmp/busy.$i bs=64k count=24 conv=fsync 2>/dev/null
  cp -a /etc /var/tmp/etc.$i
  rm -rf /var/tmp/etc.$(( (i + 3) % 6 ))
done
`;

/** Prints the maximum delay of waking from a sleep of 10 ms, since the last query. */
const CLOCK = String.raw`#!/usr/bin/perl
use strict; use warnings; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep); use IO::Handle;
my ($most, $asked) = (0, 0);
$SIG{USR1} = sub { $asked = 1 };
for (;;) {
  my $begin = clock_gettime(CLOCK_MONOTONIC);
  sleep 0.01;
  my $late = (clock_gettime(CLOCK_MONOTONIC) - $begin) * 1000;
  $most = $late if $late > $most && !$asked;
  if ($asked) { open(my $out, '>', '/run/stall.new'); printf $out "%.1f\n", $most; close $out; rename '/run/stall.new', '/run/stall'; ($most, $asked) = (0, 0); }
}
`;

const service = (what: string, program: string, after = ""): string =>
  `[Unit]\nDescription=${what}\nRequiresMountsFor=/data\n${after}[Service]\nExecStart=${program}\nRestart=no\n`;

const PACK = `
PATH=$PATH:/usr/sbin:/sbin
mkdir -p day/root/etc/systemd/system day/root/usr/local/sbin day/root/opt/ga day/root/data
ga=$(command -v qemu-ga)
cp -L "$ga" day/root/opt/ga/
ldd "$ga" | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} day/root/opt/ga/
`;

const SETUP = `
mkfs.ext4 -q -F -L data /dev/sda
tar -C "$DESTDIR" --no-same-owner -xf "$INDIR/day.tar"
printf 'LABEL=data /data ext4 defaults 0 2\\n' >>"$DESTDIR/etc/fstab"
sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=.*/GRUB_CMDLINE_LINUX_DEFAULT="fsck.mode=force"/' "$DESTDIR/etc/default/grub.d/serial.cfg"
sed -i 's/\\(linux.*console=ttyS0,115200\\)/\\1 fsck.mode=force/' "$DESTDIR/boot/grub/grub.cfg"
for one in day-writer day-busy day-clock day-agent; do
  ln -sf "/etc/systemd/system/$one.service" "$DESTDIR/etc/systemd/system/multi-user.target.wants/$one.service"
done
`;

export class Day implements Disposable {
  readonly box: Sandbox;
  #runs = "";

  private constructor(parent: string | undefined) {
    this.box = new Sandbox("day", parent);
  }

  /** Installs the guest. */
  static async make(parent?: string): Promise<Day> {
    const day = new Day(parent);
    const { box } = day;
    configure(
      box,
      `PROFILES="${join(box.top, "profiles")}"
       MEMORY=512M
       CORES=1
       PORT=
       DISKS=( VIRT=2G AHCI=192M )
       RESCUE_MEMORY=1G
       SNAPSHOT_FORMAT=qcow2\n`,
    );
    mkdirSync(join(box.home, ".ssh"), { mode: 0o700 });
    await shell('ssh-keygen -q -t ed25519 -N "" -C me@here -f .ssh/id_ed25519', box.home);
    chmodSync(join(box.home, ".ssh/id_ed25519"), 0o600);
    const recipe = join(checkout, "scripts/debian");
    for (const name of readdirSync(recipe)) copyFileSync(join(recipe, name), box.path(name));
    await shell(PACK, box.host);
    for (const [name, text] of [
      ["usr/local/sbin/day-writer", WRITER],
      ["usr/local/sbin/day-busy", BUSY],
      ["usr/local/sbin/day-clock", CLOCK],
      ["etc/systemd/system/day-writer.service", service("records", "/usr/local/sbin/day-writer")],
      ["etc/systemd/system/day-busy.service", service("load", "/usr/local/sbin/day-busy")],
      ["etc/systemd/system/day-clock.service", service("clock", "/usr/local/sbin/day-clock")],
      [
        "etc/systemd/system/day-agent.service",
        // With its libraries, whatever the guest has.
        service(
          "agent",
          "/bin/sh -c 'exec $(ls /opt/ga/lib64/ld-linux-*) --library-path /opt/ga/lib/x86_64-linux-gnu:/opt/ga/usr/lib/x86_64-linux-gnu /opt/ga/qemu-ga -m virtio-serial -p /dev/$(ls /sys/class/virtio-ports) -t /run'",
        ),
      ],
    ] as const)
      box.write(join("day/root", name), text);
    await shell("chmod 755 day/root/usr/local/sbin/*; tar -C day/root -cf day.tar .; rm -r day", box.host);
    box.write("post-install.env", "SETUP_FILES=( day.tar )\nSETUP_ROOTDEV=LABEL=debian\n");
    box.write("post-install.sh", SETUP);
    await box.ok(["rescue", "build"]);
    await box.ok(["create", "Day"]);
    await box.ok(["@job", "install-debian", "@job", "post-install", "@job", "add-ssh-keys"], {
      timeoutSeconds: 900,
      env: { DEBIAN_CACHE: debianCache() },
    });
    return day;
  }

  /** Records acknowledged by the guest. */
  safe(): number {
    const text = this.#runs + this.box.console();
    return Number([...text.matchAll(/^day: safe (\d+)$/gm)].at(-1)?.[1] ?? 0);
  }

  #found(): { data: number; root: number; whole: boolean } | undefined {
    const found = /^day: found (\d+) (\w+) and (\d+) (\w+)$/m.exec(this.box.console());
    if (!found) return undefined;
    return {
      data: Number(found[1]),
      root: Number(found[3]),
      whole: found[2] === "whole" && found[4] === "whole",
    };
  }

  /** Starts the guest. @returns its records at the start */
  async run(): Promise<{ data: number; root: number; whole: boolean }> {
    await this.box.ok(["run", "--detach", "--ssh", "--wait=ssh"]);
    return until("the guest's records", () => this.#found(), 120);
  }

  async ssh(command: string): Promise<string> {
    const { stdout } = await this.box.ok(["ssh", command]);
    return stdout;
  }

  /** The longest stall since the last query, in milliseconds of the guest's clock. */
  async stall(): Promise<number> {
    return Number(
      await this.ssh(
        "rm -f /run/stall; systemctl kill -s USR1 day-clock; while ! [ -e /run/stall ]; do sleep 0.05; done; cat /run/stall",
      ),
    );
  }

  /** How far the guest's clock is behind the host's: the minimum of many samples. */
  async behind(): Promise<number> {
    const path = join(this.box.work, "console.log");
    let seen = readFileSync(path).length;
    let least = Number.POSITIVE_INFINITY;
    for (let looks = 0; looks < 12;) {
      await Bun.sleep(2);
      const { size } = lstatSync(path);
      if (size === seen) continue;
      const now = performance.now();
      const text = readFileSync(path).toString("latin1", seen, size);
      const told = [...text.matchAll(/day: up ([\d.]+)\r/g)].at(-1)?.[1];
      if (told === undefined) continue;
      seen = size;
      looks++;
      least = Math.min(least, now - Number(told) * 1000);
    }
    return least;
  }

  async more(count: number): Promise<void> {
    const from = this.safe();
    await until("more records", () => this.safe() >= from + count, 200);
  }

  /** The snapshots of a day: alternately with and without an agent, with a restart and a power cut of qemu in between. */
  async live(hours: number, tell: (hour: Hour) => void): Promise<Hour[]> {
    const all: Hour[] = [];
    await this.run();
    for (let index = 0; index < hours; index++) {
      if (index > 0 && index === Math.floor(hours / 3)) await this.#restart(["stop"]);
      if (index > 0 && index === Math.floor((hours * 2) / 3)) {
        process.kill(await qemuPid(this.box), "SIGKILL");
        await untilQuiet(this.box);
        await this.#restart();
      }
      const agent = index % 2 === 0;
      await this.ssh(`systemctl ${agent ? "start" : "stop"} day-agent`);
      if (agent) await until("the agent", async () => (await this.box.vm(["exec", "true"])).status === 0);
      await this.more(20);
      const name = `H${String(index).padStart(2, "0")}`;
      await this.stall();
      const behind = await this.behind();
      const before = this.safe();
      const begun = performance.now();
      await this.box.ok(["backup", name, "--quiet"]);
      const seconds = (performance.now() - begun) / 1000;
      const lagMs = Math.round(Math.max(0, (await this.behind()) - behind));
      const stallMs = await this.stall();
      await this.more(6);
      const manifest = JSON.parse(this.box.read("backups", name, "manifest.json"));
      const hour: Hour = {
        name,
        consistency: manifest.consistency,
        before,
        after: this.safe(),
        storedBytes: manifest.files.reduce(
          (sum: number, file: { storedBytes?: number; bytes: number }) =>
            sum + (file.storedBytes ?? file.bytes),
          0,
        ),
        seconds,
        stallMs,
        lagMs,
      };
      all.push(hour);
      tell(hour);
    }
    await this.box.ok(["stop"]);
    return all;
  }

  async #restart(command?: string[]): Promise<void> {
    if (command) await this.box.ok(command);
    this.#runs += this.box.console();
    const { whole } = await this.run();
    if (!whole) throw new Error("the records are spoilt after a restart");
  }

  /** Problems of an hour's snapshot: restores it, checks its filesystems, and boots it. */
  async judge({ name, before, after }: Hour): Promise<string[]> {
    const wrong: string[] = [];
    const { box } = this;
    await box.ok(["restore", name]);
    const counts = await this.#checkDisks(wrong);
    this.#runs = "";
    const found = await this.run();
    await box.ok(["stop", "--force"]);
    if (!found.whole) wrong.push("its records are spoilt");
    const all = { ...counts, "after the boot, data": found.data, "after the boot, root": found.root };
    for (const [what, count] of Object.entries(all))
      // Every fifth is printed; one more may be in progress.
      if (count < before || count > after + 5)
        wrong.push(`${what}: ${count} records, not ${before} to ${after + 5}`);
    if (found.data - found.root !== 0 && found.data - found.root !== 1)
      wrong.push(`not one moment: ${found.data} and ${found.root} records`);
    return wrong;
  }

  /** Copies of both restored disks: mounting replays the journals, then fsck checks. */
  async #checkDisks(wrong: string[]): Promise<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const [disk, offset] of [
      ["data", 0],
      ["root", await this.#rootOffset()],
    ] as const) {
      const script = `
        PATH=$PATH:/sbin:/usr/sbin
        qemu-img convert -O raw '${join(this.box.work, disk === "data" ? "disk-1.img" : "disk-0.img")}' disk.raw
        mkdir -p mnt
        loop=$(losetup --find --show --offset ${offset} disk.raw)
        trap 'umount mnt 2>/dev/null || :; losetup -d $loop; rm -f disk.raw' EXIT
        mount $loop mnt
        stat -c %s mnt/${disk === "data" ? "records" : "var/records"}
        umount mnt
        e2fsck -f -n $loop >fsck.log 2>&1 || { echo "e2fsck: $?"; cat fsck.log; }`;
      const [size, ...bad] = (await shell(script, this.box.top)).trim().split("\n");
      counts[`on the disk, ${disk}`] = Number(size) / 64;
      if (bad.length > 0) wrong.push(`${disk}: ${bad.join("\n")}`);
    }
    return counts;
  }

  async #rootOffset(): Promise<number> {
    const head = join(this.box.top, "head.raw");
    await shell(
      `qemu-img dd -O raw bs=1M count=2 'if=${join(this.box.work, "disk-0.img")}' 'of=${head}'`,
      this.box.top,
    );
    const table = readFileSync(head);
    rmSync(head);
    // The third entry of the GUID partition table; its first sector (UEFI 2.10, table 5-6).
    return Number(table.readBigUInt64LE(1024 + 2 * 128 + 32)) * 512;
  }

  [Symbol.dispose](): void {
    this.box[Symbol.dispose]();
  }
}
