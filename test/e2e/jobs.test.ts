/** Jobs in a rescue built from the host's kernel, with real qemu. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { holdsText } from "../guests/efi-variables.ts";
import { join } from "node:path";
import { Sandbox, until, type Result } from "./harness.ts";
import {
  configure,
  expectError,
  freePort,
  names,
  qemuPid,
  sampled,
  sha256,
  shell,
  smallSandbox,
  suite,
  testInTurn,
  typePassphrase,
  untilQuiet,
} from "./tools.ts";

const settings = (disks: string, profiles: string): string =>
  `MEMORY=64M\nPORT=\nDISKS=( ${disks} )\nPROFILES="${profiles}"\nRESCUE_MEMORY=512M\nRESCUE_CORES=1\n`;

/** A sandbox whose jobs run in the rescue that was built once for all tests. */
function jobSandbox(profiles: string, disks = "VIRT=64M", hostName?: string): Sandbox {
  const box = smallSandbox(hostName);
  // One saved state of the rescue for all, as saving takes longer than most jobs.
  box.environment.XDG_CACHE_HOME = join(profiles, "../cache");
  configure(box, settings(disks, profiles));
  return box;
}

async function create(box: Sandbox): Promise<void> {
  await box.ok(["create", "G"]);
}

/** A small root filesystem like an installer's. */
async function install(box: Sandbox, how: string, more = ""): Promise<void> {
  box.write(
    "install.job",
    `${how}
     mkdir /mnt/new && mount "$root" /mnt/new
     mkdir -p /mnt/new/bin /mnt/new/etc /mnt/new/root /mnt/new/proc /mnt/new/sys /mnt/new/dev /mnt/new/home
     echo 'NAME="Test"' >/mnt/new/etc/os-release
     echo "$root / auto defaults 0 0" >/mnt/new/etc/fstab
     echo root:x:0:0:root:/root:/bin/sh >/mnt/new/etc/passwd
     ${more}\n`,
  );
  await box.ok(["job", "install"]);
}

suite("jobs", () => {
  let base: Sandbox;
  let profiles: string;
  let first: Result;

  beforeAll(async () => {
    base = new Sandbox();
    profiles = join(base.top, "profiles");
    configure(base, `PROFILES="${profiles}"\nPORT=\n`);
    using box = jobSandbox(profiles);
    await create(box);
    box.write("first.job", "exit 5\n");
    first = await box.vm(["--rescue=auto", "job", "first"]);
  });
  afterAll(() => base?.[Symbol.dispose]());

  test("--rescue=auto builds it", () => {
    expect(first.status, first.stderr).toBe(5);
  });

  test("the profile is complete, private, and listed as usable", async () => {
    const { stdout } = await base.ok(["rescue", "list"]);
    expect(stdout).toMatch(/^rescue-x86_64 +own +x86_64 i386 +usable +\d+ MiB$/m);
    expect(names(profiles)).toEqual(["rescue-x86_64"]);
    expect(statSync(join(profiles, "rescue-x86_64")).mode & 0o077).toBe(0);
  });

  test("names a file at the path of the profiles", async () => {
    using box = new Sandbox();
    configure(box, "PROFILES=/etc/passwd\n");
    expectError(await box.vm(["rescue", "build"]), 73, /\/etc\/passwd is not a directory\n.*PROFILES/);
  });

  test("without a rescue a job suggests the one command that builds it, and runs no hook", async () => {
    using box = smallSandbox();
    await create(box);
    box.write("x.job", "true\n");
    box.write("x.pre", "touch ran\n");
    expectError(await box.vm(["job", "x"]), 66, /no rescue system 'rescue-x86_64'[^]*rescue build/);
    expect(existsSync(box.path("ran"))).toBe(false);
  });

  test("a job sees the SMBIOS fields of its VM, not those of a saved state", async () => {
    using box = jobSandbox(profiles);
    await box.ok(["--smbios=type=1,manufacturer=ACME,, Inc.,serial=7", "create", "G"]);
    box.write("dmi.job", "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_serial\n");
    expect((await box.ok(["job", "dmi"])).stdout).toBe("ACME, Inc.\n7\n");
    expect((await box.ok(["--smbios=", "job", "dmi"])).stdout).toMatch(/^QEMU\n/);
  });

  describe("in one VM", () => {
    let box: Sandbox;
    const out = (name: string): string => box.path(".work/.out", name);
    beforeAll(async () => {
      box = jobSandbox(profiles, "VIRT=64M", "my VM, №1 'q'");
      await create(box);
    });
    afterAll(() => box?.[Symbol.dispose]());

    test("hooks, input, output, log and variables", async () => {
      box.write(
        "main.pre",
        'printf "%s\\n" "$HOSTDIR" "$WORKDIR" "${DISKS[0]}" "$PROG" "$ARG_UEFI" "${ARG_IMAGES[*]}" >hook.txt\ncp main.txt "$WORKDIR/.in/"\n',
      );
      box.write("main.txt", "from the host\n");
      box.write(
        "main.job",
        'run cat main.txt; run cp main.txt "$OUTDIR/copy"; echo "$0 $PWD $INDIR $OUTDIR"; echo "[$MIRROR]"; echo *; a=(1 2); echo "${a[1]}"\n',
      );
      box.write("main.post", 'cp "$WORKDIR/.out/copy" "$HOSTDIR/copied"\n');
      const { stdout, stderr } = await box.ok(["job", "main"]);
      expect(stderr).toMatch(
        /^waiting for the rescue rescue-x86_64\n(.*\n)*the job main has started\n(.*\n)*the job main succeeded$/m,
      );
      expect(stdout.split("\n")).toEqual([
        "exec: cat main.txt",
        "from the host",
        "exec: cp main.txt /tmp/.out/copy",
        "sh /tmp/.in /tmp/.in /tmp/.out",
        "[]",
        "*",
        "2",
        "",
      ]);
      expect(box.read("copied")).toBe("from the host\n");
      expect(box.read("hook.txt").split("\n")).toEqual([box.host, box.work, "VIRT=64M", "vm", "", "", ""]);
      expect(await Bun.file(out("job.log")).text()).toBe(stdout);
      expect(await Bun.file(out("STATUS")).text()).toBe("0\n");
      expect(existsSync(out("STARTED")) && existsSync(out("FINISHED"))).toBe(true);
      expect(existsSync(box.path(".work/.in"))).toBe(false);
      expect(existsSync(box.path(".work/run-rescue.sh"))).toBe(true);
      expect(await box.leftovers()).toEqual([]);
    });

    test("hooks have the user's locale, umask, stdout and variables of vm.conf; .post gets the job's results", async () => {
      configure(
        box,
        `${settings("VIRT=64M", profiles)}OWN="a b"; export EXPORTED=${"$"}{OWN}c; LIST=( 1 'two  three' ); greet() { printf 'hi %s\\n' "$1"; }\n`,
      );
      box.write(
        "user.pre",
        `umask; echo "$LC_ALL $OWN $EXPORTED \${LIST[1]}"; greet me; printenv EXPORTED; echo aside >&2\n`,
      );
      box.write(
        "user.job",
        `mkdir $OUTDIR/bin; printf '#!/bin/sh\\necho ran\\n' >$OUTDIR/bin/tool; chmod 755 $OUTDIR/bin/tool
         ln -s bin/tool $OUTDIR/short; ln -s $OUTDIR/bin $OUTDIR/whole; ln -s /etc/passwd $OUTDIR/outside\n`,
      );
      box.write(
        "user.post",
        `cd "$WORKDIR/.out"; ./bin/tool; ./short; whole/tool; [ ! -L outside ]; ls -A | grep virtfs || echo none; greet you\n`,
      );
      const { stdout, stderr } = await box.ok(["job", "user"], { env: { LC_ALL: "C.UTF-8" } });
      expect(stdout.split("\n")).toEqual([
        (process.umask() & 0o777).toString(8).padStart(4, "0"),
        "C.UTF-8 a b a bc two  three",
        "hi me",
        "a bc",
        "ran",
        "ran",
        "ran",
        "none",
        "hi you",
        "",
      ]);
      expect(stderr).toContain("aside\n");
      expect(stderr).toContain("are kept as regular files with the target as content: outside\n");
      configure(box, settings("VIRT=64M", profiles));
    });

    test.each(sampled([42, 1, 2, 255]))("returns a job's status %d; .post does not run", async (status) => {
      box.write("fails.job", `exit ${status}\n`);
      box.write("fails.post", "touch posted\n");
      const result = await box.vm(["@job", "fails", "@backup", "never"]);
      expect(result.status).toBe(status);
      expect(result.stderr).toContain(`the job fails failed with status ${status}`);
      expect(existsSync(box.path("posted"))).toBe(false);
      expect(existsSync(box.path("backups"))).toBe(false);
    });

    test("a failing .pre stops the job before any rescue starts", async () => {
      box.write("early.pre", "fatal no good\n");
      box.write("early.job", "true\n");
      const result = await box.vm(["job", "early"]);
      expect(result.status).toBe(1);
      expect(result.stderr).toMatch(/^vm: no good\nvm: the hook early.pre ended with status 1/m);
      expect(existsSync(box.path(".work/.in"))).toBe(false);
    });

    test("the time limit ends the job; its log is kept", async () => {
      box.write("long.job", "echo begun; sleep 1000\n");
      const result = await box.vm(["--timeout=2", "job", "long"]);
      expect({ status: result.status, stdout: result.stdout }).toEqual({ status: 124, stdout: "begun\n" });
      expect(await Bun.file(out("job.log")).text()).toBe("begun\n");
      expect(await box.leftovers()).toEqual([]);
    });

    test("kills a rescue that does not start its job in time", async () => {
      configure(box, `${settings("VIRT=64M", profiles)}RESCUE_WARM=off\nRESCUE_START_TIMEOUT=1\n`);
      box.write("late.job", "touch $OUTDIR/ran\n");
      expectError(await box.vm(["job", "late"]), 124, /did not start the job late within 1 seconds/);
      configure(box, settings("VIRT=64M", profiles));
      expect(existsSync(out("ran"))).toBe(false);
      expect(await box.leftovers()).toEqual([]);
    });

    test("a panic ends the job at once, with the console's last lines", async () => {
      box.write("panics.job", "echo begun; sleep 0.5; echo c >/proc/sysrq-trigger; sleep 100\n");
      const result = await box.vm(["job", "panics"]);
      expect(result.status).toBe(74);
      expect(result.stderr).toMatch(/without a status of the job panics[^]*Kernel panic/);
      expect(existsSync(box.path(".work/.in"))).toBe(false);
    });

    test("killed qemu: reports no status, even if one was written", async () => {
      box.write("dies.job", "echo 0 >$OUTDIR/STATUS; echo waiting; sleep 100\n");
      rmSync(out("STATUS"), { force: true });
      const running = box.start(["job", "dies"]);
      await until("the job's output", () => existsSync(out("STATUS")));
      process.kill(await qemuPid(box), "SIGKILL");
      const result = await running.done;
      expect(result.status).toBe(74);
      await untilQuiet(box);
    });

    test("resumed: a job that kills what the rescue has started, one without network, one that powers off", async () => {
      // One more for the state, should this test run alone.
      box.write("nic.job", "set +f; echo /sys/class/net/*\n");
      expect((await box.ok(["job", "nic"])).stdout).toBe("/sys/class/net/eth0 /sys/class/net/lo\n");
      expect((await box.ok(["--no-netdev", "job", "nic"])).stdout).toBe("/sys/class/net/lo\n");
      box.write(
        "kills.job",
        `set +ef; for exe in /proc/[0-9]*/exe; do
           pid=\${exe%/exe}; pid=\${pid#/proc/}
           if [ "$pid" -gt 1 ] && [ "$(readlink "$exe")" = /usr/bin/busybox ]; then kill -9 "$pid"; fi
         done; exit 7\n`,
      );
      expect((await box.vm(["--timeout=60", "job", "kills"])).status).toBe(7);
      box.write("off.job", "poweroff -f; sleep 100\n");
      // A reset of the card: a qemu may crash.
      expectError(await box.vm(["job", "off"]), 74, /without a status of the job off \(qemu exited: guest-/);
    });

    test.each(["SIGINT", "SIGTERM"] as const)("%s stops the job cleanly", async (signal) => {
      box.write("stopped.job", "mkdir /mnt/x; mount -t tmpfs tmpfs /mnt/x; echo waiting; sleep 100\n");
      rmSync(box.path(".work/.out"), { recursive: true, force: true });
      const running = box.start(["job", "stopped"]);
      await until("the job's output", () => existsSync(out("job.log")) && statSync(out("job.log")).size > 0);
      running.kill(signal);
      expect((await running.done).status).toBe(signal === "SIGINT" ? 130 : 143);
      expect(await box.leftovers()).toEqual([]);
      expect(existsSync(box.path(".work/.in"))).toBe(false);
    });

    test.each(sampled([50, 200, 500, 1000], 0))(
      "SIGTERM %d ms after the start: nothing is left",
      async (ms) => {
        box.write("stopped.job", "sleep 100\n");
        const running = box.start(["job", "stopped"]);
        await Bun.sleep(ms);
        running.kill("SIGTERM");
        const { status, signal } = await running.done;
        // On a busy machine the signal may come before the program has started.
        if (signal === null) expect(status).toBe(143);
        else expect(signal).toBe("SIGTERM");
        expect(await box.leftovers()).toEqual([]);
        expect(existsSync(box.path(".work/.in"))).toBe(false);
      },
    );

    test("a million lines, and 200 MB in .out", async () => {
      box.write("much.job", "seq 1000000; dd if=/dev/zero of=$OUTDIR/big bs=1M count=200 2>/dev/null\n");
      const { stdout } = await box.ok(["job", "much"]);
      expect(stdout.length).toBe(6_888_896);
      expect(stdout.endsWith("999999\n1000000\n")).toBe(true);
      expect(statSync(out("big")).size).toBe(200 << 20);
    });

    testInTurn(0)("a FAT filesystem", async () => {
      box.write(
        "fat.job",
        `mkfs.vfat /dev/vda >/dev/null 2>&1; mkdir /mnt/fat; mount /dev/vda /mnt/fat; echo kept >"/mnt/fat/a long name.txt"
         umount /mnt/fat; mount /dev/vda /mnt/fat; cat "/mnt/fat/a long name.txt"; umount /mnt/fat; fsck.vfat -n /dev/vda >/dev/null 2>&1\n`,
      );
      expect((await box.ok(["job", "fat"])).stdout).toBe("kept\n");
    });

    test("a hostile job reaches nothing outside .out, and makes the host print nothing else", async () => {
      const secret = join(box.top, "secret");
      writeFileSync(secret, "the secret\n");
      box.write(
        "hostile.job",
        `touch x 2>&1 || echo read-only
         mount -o remount,rw /tmp/.in 2>/dev/null; touch /tmp/.in/x 2>/dev/null && echo WRITTEN
         ln -s '${secret}' $OUTDIR/link; ln -s / $OUTDIR/root; mknod $OUTDIR/node b 1 1
         cp /bin/bash $OUTDIR/setuid; chmod 4755 $OUTDIR/setuid
         echo x >$OUTDIR/../escaped
         rm -f $OUTDIR/job.log; ln -s '${secret}' $OUTDIR/job.log; exit 3\n`,
      );
      const result = await box.vm(["job", "hostile"]);
      expect(result.status).toBe(3);
      expect(result.stdout + result.stderr).not.toContain("the secret");
      expect(result.stdout).not.toContain("WRITTEN");
      expect(await shell("find . -type l -o -type b -o -type c -o -perm /7000", box.path(".work/.out"))).toBe(
        "",
      );
      expect(existsSync(box.path(".work/escaped"))).toBe(false);
    });

    test.each(["../x", "a/b", ".x", ""])("refuses the name %j", async (name) => {
      expect((await box.vm(["job", name])).status).toBe(64);
    });

    test("does not run a job that other users can write", async () => {
      box.write("open.job", "true\n");
      await shell("chmod 666 open.job", box.host);
      expectError(
        await box.vm(["job", "open"]),
        78,
        /refusing to run .*open\.job: .* writable by other users/,
      );
    });

    test("a missing job, with the searched directories; the list of jobs", async () => {
      expectError(await box.vm(["job", "nosuch"]), 66, /no such job: nosuch[^]*nosuch\.job in /);
      expectError(await box.vm(["job"]), 64, /JOBNAME is missing[^]*vm job --list/);
      const { stdout } = await box.ok(["job", "--list"]);
      expect(stdout).toMatch(/^main +this VM's own$/m);
      expect(stdout).toMatch(/^add-ssh-keys +bundled +Adds the keys listed in SSHKEYS/m);
    });
  });

  test("disks of every bus, in order", async () => {
    using box = jobSandbox(profiles, "USB=37M AHCI=32M AHCI=33M SCSI=34M VIRT=35M NVME=36M");
    await create(box);
    box.write(
      "look.job",
      "for d in sda sdb sdc sdd vda nvme0n1; do echo $d $(($(cat /sys/block/$d/size) / 2048)); done\n",
    );
    expect((await box.ok(["job", "look"])).stdout).toBe(
      "sda 32\nsdb 33\nsdc 34\nsdd 37\nvda 35\nnvme0n1 36\n",
    );
  });

  testInTurn(0, 4)(
    "a UEFI guest has its variables, also in a resumed rescue; --no-uefi omits them",
    async () => {
      using box = jobSandbox(profiles);
      await box.ok(["--uefi", "create", "G"]);
      const name = "Kept-12345678-1234-1234-1234-123456789abc";
      box.write("efi.job", "set +f; ls /sys/firmware/efi/efivars/BootOrder-* || echo none\n");
      box.write("keep.job", `printf '\\007\\0\\0\\0kept' >/sys/firmware/efi/efivars/${name}\n`);
      box.write("read.job", `tail -c 4 /sys/firmware/efi/efivars/${name} || echo none\n`);
      expect((await box.ok(["job", "efi"])).stdout).toMatch(/BootOrder-/);
      expect((await box.ok(["--no-uefi", "job", "efi"])).stdout).toMatch(/none/);
      // By now resumed.
      await box.ok(["job", "keep"]);
      const variables = readFileSync(box.path(".work/efivars.bin"));
      expect(holdsText(variables, "Kept")).toBe(true);
      // Another set of variables: another state.
      for (const _ of [1, 2]) expect((await box.ok(["job", "read"])).stdout).toBe("kept");
      expect(readFileSync(box.path(".work/efivars.bin")).equals(variables)).toBe(false);
    },
  );

  testInTurn(5, 8)("two first jobs at once, and one that is killed while it saves the state", async () => {
    using box = jobSandbox(profiles);
    using other = jobSandbox(profiles);
    const cache = join(box.top, "cache");
    const warm = join(cache, "vm/warm");
    for (const one of [box, other]) {
      one.environment.XDG_CACHE_HOME = cache;
      await create(one);
      one.write("hello.job", "echo hello\n");
    }
    const killed = box.start(["job", "hello"]);
    await until("the state is being made", () => existsSync(warm) && names(warm).length > 0);
    killed.kill("SIGKILL");
    await killed.done;
    await untilQuiet(box);
    for (const name of names(warm)) utimesSync(join(warm, name), 1, 1);
    const both = await Promise.all([box.ok(["job", "hello"]), other.ok(["job", "hello"])]);
    expect(both.map(({ stdout }) => stdout)).toEqual(["hello\n", "hello\n"]);
    expect(names(warm)).toEqual([expect.stringMatching(/^rescue-x86_64\.[0-9a-f]{32}$/) as never]);
    const ram = join(warm, names(warm)[0]!, "ram");
    const before = sha256(ram);
    await Promise.all([box.ok(["job", "hello"]), other.ok(["job", "hello"])]);
    expect(sha256(ram)).toBe(before);
  });

  test.each<[name: string, disks: string, how: string]>(
    sampled([
      [
        "LVM",
        "VIRT=400M",
        "pvcreate -q /dev/vda >/dev/null; vgcreate -q vg /dev/vda; lvcreate -q -y -Zn -Wn --noudevsync -L 300M -n root vg; lvm vgmknodes; root=/dev/vg/root; mke2fs -q -t ext4 $root",
      ],
      ["xfs", "VIRT=400M", "root=/dev/vda; mkfs.xfs -q $root"],
      ["btrfs", "VIRT=400M", "root=/dev/vda; mkfs.btrfs -q $root"],
      ["ext4", "VIRT=100M", "root=/dev/vda; mke2fs -q -t ext4 $root"],
      [
        "md raid1",
        "VIRT=100M VIRT=100M",
        "mdadm -q --create /dev/md0 --run --level=1 --metadata=1.2 --raid-devices=2 /dev/vda /dev/vdb; root=/dev/md0; mke2fs -q -t ext4 $root",
      ],
    ]),
  )("add-ssh-keys on %s", async (_name, disks, how) => {
    using box = jobSandbox(profiles, disks);
    await create(box);
    await install(box, how);
    mkdirSync(join(box.home, ".ssh"));
    writeFileSync(join(box.home, ".ssh/id_ed25519.pub"), "ssh-ed25519 AAAAC3 me@here\n");
    await box.ok(["job", "add-ssh-keys"]);
    box.write(
      "show.job",
      "mount-system; cat /mnt/system1/root/.ssh/authorized_keys; stat -c %a /mnt/system1/root/.ssh\n",
    );
    const { stdout } = await box.ok(["job", "show"]);
    expect(stdout.match(/ssh-ed25519 AAAAC3 me@here/g)).toHaveLength(1);
    expect(stdout).toMatch(/^700$/m);
  });

  // On the other days of a Debian: debian.test.ts.
  testInTurn(1, 8)(
    "post-install with files and a chroot; run-ssh: a login, which ends with RELEASE",
    async () => {
      using box = jobSandbox(profiles);
      const port = await freePort();
      configure(
        box,
        `${settings("VIRT=64M", profiles)}RESCUE_FORWARDS="hostfwd=tcp:127.0.0.1:${port}-:22"\n`,
      );
      await create(box);
      box.write("install.pre", `cp "$(PATH=$PATH:/sbin:/usr/sbin; command -v busybox)" "$WORKDIR/.in/"\n`);
      await install(box, "root=/dev/vda; mke2fs -q -t ext4 $root", "cp -r busybox /mnt/new/bin/sh");
      box.write("one.txt", "one\n");
      box.write("post-install.env", "SETUP_HOSTNAME=renamed\nSETUP_FILES=( one.txt )\n");
      box.write(
        "post-install.sh",
        `cat one.txt; echo "$SETUP_HOSTNAME" >"$DESTDIR/etc/hostname"
       chroot "$DESTDIR" /bin/sh -c 'test -d /proc/1 && echo chrooted' >"$OUTDIR/said"\n`,
      );
      box.write("post-install.post", 'cp "$OUTDIR/said" "$HOSTDIR/said"\n');
      expect((await box.ok(["job", "post-install"])).stdout).toContain("\none\n");
      expect(box.read("said")).toBe("chrooted\n");

      mkdirSync(join(box.home, ".ssh"), { mode: 0o700 });
      await shell('ssh-keygen -q -t ed25519 -N "" -f .ssh/id_ed25519', box.home);
      const running = box.start(["job", "run-ssh"]);
      const ssh = `ssh -F /dev/null -i .ssh/id_ed25519 -p ${port} -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no \
      -o UserKnownHostsFile=/dev/null root@127.0.0.1 'mount-system >/dev/null; cat /mnt/system1/etc/hostname'`;
      expect(
        await shell(`for i in $(seq 120); do ${ssh} 2>/dev/null && break; sleep 0.5; done`, box.home),
      ).toBe("renamed\n");
      rmSync(box.path(".work/.out/RELEASE"));
      const { status, stdout } = await running.done;
      expect(status).toBe(0);
      expect(stdout).toContain(`ssh -p ${port} root@127.0.0.1`);
    },
  );

  testInTurn(2, 4)(
    "mount-system follows the fstab if disks and subvolumes have other names, and fails if it cannot",
    async () => {
      using box = jobSandbox(profiles, "VIRT=400M");
      await create(box);
      box.write(
        "disks.job",
        `fresh() { # DEVICE DIR FSTAB
       mount "$1" /mnt/new; mkdir -p /mnt/new$2/etc /mnt/new$2/boot
       echo 'NAME="Test"' >/mnt/new$2/etc/os-release; printf "$3" >/mnt/new$2/etc/fstab; umount /mnt/new
     }
     look() {
       mount-system 2>&1 || echo "status $?"; mount-system >/dev/null 2>&1 || echo again
       while umount -R /mnt/system1 2>/dev/null; do :; done
     }
     mkdir /mnt/new; printf ',100M\\n,\\n' | sfdisk -q /dev/vda; mke2fs -q /dev/vda1; mke2fs -q -t ext4 /dev/vda2
     fresh /dev/vda2 "" '/dev/sda2 / ext4\\n/dev/sda1 /boot ext2\\n'; look
     fresh /dev/vda2 "" '/dev/sda2 / ext4\\n/dev/sdb1 /boot ext2\\n'; look
     mkfs.btrfs -q -f /dev/vda2 >/dev/null
     mount /dev/vda2 /mnt/new; btrfs subvolume create /mnt/new/distro >/dev/null; umount /mnt/new
     fresh /dev/vda2 /distro '/dev/sda2 / btrfs subvol=/distro\\n/dev/sda1 /boot ext2\\n'
     mount /dev/vda2 /mnt/new; btrfs subvolume snapshot /mnt/new/distro /mnt/new/backup >/dev/null; umount /mnt/new
     look
     mount /dev/vda2 /mnt/new; btrfs subvolume delete /mnt/new/distro >/dev/null; umount /mnt/new
     look\n`,
      );
      const { stdout } = await box.ok(["job", "disks"]);
      const whole = "/dev/vda2 -> /mnt/system1\n/dev/vda1 -> /mnt/system1/boot\n";
      expect(stdout).toBe(
        `${whole}/dev/vda2 -> /mnt/system1
mount-fstab: /boot: cannot find /dev/sdb1 (the root, /dev/sda there, is on /dev/vda here)
mount-system: not all of /mnt/system1/etc/fstab is mounted
status 1
again
${whole}mount-system: /dev/vda2: cannot tell which subvolume is the root: no fstab of these names its own: backup
mount-system: no installed system found on these devices:
  /dev/vda1 ext2
  /dev/vda2 btrfs
status 1
again
`,
      );
    },
  );

  testInTurn(3, 4)(
    "a LUKS guest: the key from a file that .pre puts into .in; from a terminal; or none",
    async () => {
      using box = jobSandbox(profiles, "VIRT=200M");
      await create(box);
      box.write("key", "a secret key");
      box.write("install.pre", 'cp key "$WORKDIR/.in/luks.key"\n');
      await install(
        box,
        `# As installers do it, but with less memory: argon2id.
       cryptsetup -q luksFormat --type luks2 --pbkdf argon2id --pbkdf-memory 16384 --pbkdf-force-iterations 4 /dev/vda luks.key
       cryptsetup open --key-file luks.key /dev/vda new; root=/dev/mapper/new; mke2fs -q -t ext4 $root`,
      );
      const look = "mount-system; cat /mnt/system1/etc/os-release\n";
      box.write("look.pre", 'cp key "$WORKDIR/.in/luks.key"\n');
      box.write("look.job", look);
      expect((await box.ok(["job", "look"])).stdout).toContain('NAME="Test"');
      box.write("blind.job", look);
      expect((await box.vm(["job", "blind"])).status).not.toBe(0);
      const shown = await typePassphrase(box, "job blind", "a secret key");
      expect(shown).toContain('NAME="Test"');
      expect(shown).not.toContain("a secret key");
    },
  );

  test("a second build renews it and keeps its settings; another kind is refused", async () => {
    const file = join(profiles, "rescue-x86_64/guest.env");
    const text = `${await Bun.file(file).text()}RESCUE_CORES=2\n`;
    writeFileSync(file, text);
    // Two at once: one waits for the other, and both leave a complete one.
    await Promise.all([base.ok(["rescue", "build"]), base.ok(["rescue", "build"])]);
    expect(await Bun.file(file).text()).toBe(text);
    expect(names(join(profiles, "rescue-x86_64"))).toEqual(["guest.env", "initrd.img", "vmlinux", "vmlinuz"]);
    expect(names(profiles)).toEqual(["rescue-x86_64"]);
    mkdirSync(join(profiles, "other"));
    expectError(
      await base.vm(["rescue", "build", "--name=other"]),
      73,
      /it exists, and is another kind of rescue/,
    );
  });
});
