/**
 * A real Debian: installed as the README shows, which shows that it boots and accepts the key; then changed by the bundled
 * jobs. It takes minutes: every other day, and in scripts/soak. The same jobs with a small guest: jobs.test.ts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { buildStandinIso } from "../standin/build.ts";
import { binary, checkout, guests, Sandbox, until, type Running } from "./harness.ts";
import { playStep, readSteps, type Step } from "./readme-session.ts";
import {
  configure,
  debianCache,
  debianDiskCache,
  freePort,
  isTurn,
  mode,
  shell,
  suite,
  testInTurn,
  untilQuiet,
} from "./tools.ts";

const recipe = join(checkout, "scripts/debian");

const CD = "--rescue=cd";

/** A user's ssh, with a key and without host key checks. */
const SSH = `#!/bin/sh
exec ${Bun.which("ssh")} -F /dev/null -i "$HOME/.ssh/id_ed25519" -o BatchMode=yes -o ConnectTimeout=20 \\
  -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$@"
`;

/** Keeps the disk for the tests below. */
function keep(disk: string): void {
  const kept = debianDiskCache();
  if (existsSync(kept)) return;
  copyFileSync(disk, `${kept}.${process.pid}`);
  renameSync(`${kept}.${process.pid}`, kept);
}

function testSession(): void {
  test("works as documented", async () => {
    using box = new Sandbox();
    const bin = join(box.top, "bin");
    for (const directory of [bin, join(box.home, "src"), join(box.home, ".ssh")])
      mkdirSync(directory, { mode: 0o700 });
    await Bun.$`ssh-keygen -q -t ed25519 -N ${""} -f ${box.home}/.ssh/id_ed25519`;
    symlinkSync(checkout, join(box.home, "src/vm"));
    symlinkSync(resolve(binary), join(bin, "vm"));
    writeFileSync(join(bin, "ssh"), SSH, { mode: 0o700 });
    const port = await freePort();
    const steps = readSteps("Debian");
    expect(steps.length).toBeGreaterThanOrEqual(7);
    let directory = box.home;
    let background: Promise<void> | undefined;

    const env = box.env({ PATH: `${bin}:${process.env.PATH}`, DEBIAN_CACHE: debianCache() });
    const play = async (step: Step): Promise<void> => {
      directory = await playStep(step, directory, env);
    };

    for (const { command, output } of steps) {
      const step = { command: command.replaceAll("5555", String(port)), output };
      if (command === "wait") await background;
      else if (command.endsWith(" &")) background = play({ ...step, command: step.command.slice(0, -2) });
      else await play(step);
      if (command.includes("install-debian")) keep(join(directory, ".work/disk-0.img"));
    }
    expect(dirname(directory)).toBe(join(box.home, "vm"));
  }, 900_000);
}

function testGuest(): void {
  let box: Sandbox;
  let rescuePort: number;

  /** Runs a command by ssh; undefined while no login is possible. */
  async function ssh(port: number, command: string): Promise<string | undefined> {
    const options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"];
    options.push("ConnectTimeout=20", "LogLevel=ERROR", "IdentitiesOnly=yes");
    const argv = ["ssh", "-F", "/dev/null", "-i", join(box.home, ".ssh/id_ed25519"), "-p", String(port)];
    argv.push(...options.flatMap((option) => ["-o", option]), "root@127.0.0.1", command);
    const child = Bun.spawn(argv, { stdin: "ignore", stdout: "pipe", stderr: "ignore", env: box.env() });
    const text = await new Response(child.stdout).text();
    return (await child.exited) === 0 ? text : undefined;
  }

  /** The same, repeated until the machine is up. */
  async function login(running: Running, port: number, command: string): Promise<string> {
    let over = false;
    void running.done.then(() => (over = true));
    return await until(`a login by ssh for "${command}"`, async () => {
      if (over) throw new Error(`the machine is off:\n${running.stderr()}`);
      const text = await ssh(port, command);
      if (text === undefined) await Bun.sleep(500);
      return text;
    });
  }

  const start = (args: readonly string[]): Running => box.start(args);

  beforeAll(async () => {
    box = new Sandbox();
    rescuePort = await freePort();
    configure(
      box,
      `PROFILES="${join(box.top, "profiles")}"
       MEMORY=512M
       PORT=
       DISKS=( VIRT=2G )
       RESCUE_MEMORY=1G
       RESCUE_START_TIMEOUT=600
       RESCUE_FORWARDS="hostfwd=tcp:127.0.0.1:${rescuePort}-:22"\n`,
    );
    mkdirSync(join(box.home, ".ssh"), { mode: 0o700 });
    await shell('ssh-keygen -q -t ed25519 -N "" -C me@here -f .ssh/id_ed25519', box.home);
    chmodSync(join(box.home, ".ssh/id_ed25519"), 0o600);
    for (const name of readdirSync(recipe)) copyFileSync(join(recipe, name), box.path(name));
    await box.ok(["rescue", "build"]);
    const iso = await buildStandinIso(join(checkout, ".cache/standin"));
    await box.ok(["rescue", "build", `--iso=${iso}`, "--name=cd"]);
    await box.ok(["create", "deb"]);
    const kept = debianDiskCache();
    const disk = join(box.work, "disk-0.img");
    if (!existsSync(kept)) throw new Error("no Debian is installed: the test above does it");
    copyFileSync(kept, disk);
  });
  afterAll(() => box?.[Symbol.dispose]());

  test("a second installation refuses the disk, and changes nothing", async () => {
    const result = await box.vm(["job", "install-debian"], { env: { DEBIAN_CACHE: debianCache() } });
    expect(result.status).toBe(1);
    expect(result.stdout).toContain("/dev/vda is not blank");
  });

  test.each([["our own rescue"], ...(isTurn(0, 4) ? [["a rescue CD, by BIOS", CD]] : [])])(
    "run-ssh in %s: a login; removing RELEASE ends it",
    async (_where, ...options) => {
      const running = start([...options, "job", "run-ssh"]);
      const text = await login(
        running,
        rescuePort,
        "mount-system >/dev/null && cat /mnt/system1/etc/hostname && test -e /tmp/.out/RELEASE && echo here",
      );
      expect(text).toBe("deb\nhere\n");
      rmSync(box.path(".work/.out/RELEASE"));
      const result = await running.done;
      expect(result.status).toBe(0);
      expect(result.stdout).toContain(`ssh -p ${rescuePort} root@127.0.0.1`);
      await untilQuiet(box);
    },
  );

  testInTurn(2, 4)("post-install in a rescue CD, by UEFI; add-ssh-keys there, by BIOS", async () => {
    const keys = "root/.ssh/authorized_keys";
    box.write(
      "post-install.sh",
      `test -d /sys/firmware/efi && echo EFI
     rm -f "$DESTDIR/${keys}"\nrun chroot "$DESTDIR" sh -c "test -d /proc/1; id -un"\n`,
    );
    const { stdout } = await box.ok([CD, "--uefi", "job", "post-install"]);
    expect(stdout).toContain("EFI\n");
    expect(stdout).toContain("\nroot\n");
    await box.ok([CD, "job", "add-ssh-keys"]);
    box.write("show.job", `mount-system; cat /mnt/system1/${keys}\n`);
    expect((await box.ok(["job", "show"])).stdout).toEndWith(" me@here\n");
  });

  testInTurn(0, 4)(
    "the network interface has the same name at each start: alone, with a CD, with further hardware, taken over",
    async () => {
      await box.ok(["job", "add-ssh-keys"]);
      const port = await freePort();
      const names = async (args: readonly string[]): Promise<string> => {
        const running = start([`--forward=tcp:127.0.0.1:${port}-:22`, ...args, "run"]);
        const text = await login(running, port, "ls /sys/class/net");
        await ssh(port, "systemctl poweroff");
        expect((await running.done).status).toBe(0);
        return text;
      };
      expect(await names([])).toBe("ens5\nlo\n");
      await box.ok(["cd", (await guests()).haltIso]);
      writeFileSync(join(box.top, "further.img"), Buffer.alloc(1 << 20));
      const further = [`--share=top:${box.top}`, `--image=NVME=raw=${box.top}/further.img`, "--port=5999"];
      expect(await names(further)).toBe("ens5\nlo\n");
      const path = box.path(".work/guest.env");
      const before = readFileSync(path, "utf8");
      // What the earlier program wrote.
      writeFileSync(path, before.replaceAll(/^(VM_FORMAT|LAYOUT|MAC|UUID)=.*\n/gm, ""));
      expect(await names([])).toBe("ens5\nlo\n");
      writeFileSync(path, before);
    },
  );

  test("post-install: parameters, files, archive, chroot, and results in .out", async () => {
    box.write("one.txt", "one\n");
    box.write("sub dir/two files.txt", "two\n");
    await shell("mkdir -p tree/etc; echo packed >tree/etc/packed; chmod 750 tree/etc/packed", box.host);
    await shell("tar -C tree --owner=0 --group=0 -czf post-install.host-renamed.tgz ./etc/packed", box.host);
    box.write(
      "post-install.env",
      'SETUP_HOSTNAME=renamed\nSETUP_USERNAME=anna\nSETUP_USER_UID=1234\nSETUP_ROOTDEV=LABEL=debian\nSETUP_FILES=( one.txt "sub dir/two files.txt" )\n',
    );
    box.write(
      "post-install.sh",
      `echo "$DESTDIR \${#SETUP_FILES[@]}"
       run cat one.txt "two files.txt"
       echo "$SETUP_HOSTNAME" >"$DESTDIR/etc/hostname"
       run tar -xpf "$INDIR/post-install.host-$SETUP_HOSTNAME.tgz" -C "$DESTDIR" ./etc/packed
       run chroot "$DESTDIR" useradd -m -u "$SETUP_USER_UID" "$SETUP_USERNAME"
       run chroot "$DESTDIR" sh -c 'test -e /dev/vda3 && test -d /proc/1 && test -d /sys/block && id anna' >"$OUTDIR/id"\n`,
    );
    box.write(
      "post-install.post",
      'cp "$OUTDIR/id" "$HOSTDIR/id"; echo "$SETUP_HOSTNAME" >"$HOSTDIR/posted"\n',
    );
    const { stdout } = await box.ok(["job", "post-install"]);
    expect(stdout).toContain("/mnt/target 2\nexec: cat one.txt two files.txt\none\ntwo\n");
    expect(box.read("id")).toContain("uid=1234(anna) gid=1234(anna)");
    expect(box.read("posted")).toBe("renamed\n");
    expect(existsSync(box.path(".work/.in"))).toBe(false);

    box.write(
      "show.job",
      "mount-system; cd /mnt/system1; cat etc/hostname etc/packed; stat -c %a etc/packed; ls home\n",
    );
    const shown = await box.ok(["job", "show"]);
    expect(shown.stdout).toEndWith("renamed\npacked\n750\nanna\n");
    // Unmounted cleanly each time: the journal is empty.
    box.write("clean.job", "dumpe2fs -h /dev/vda3 | grep features:\n");
    const { stdout: features } = await box.ok(["job", "clean"]);
    expect(features).toContain("has_journal");
    expect(features).not.toContain("needs_recovery");
    expect(mode(box.path(".work/.out/job.log"))).toBe("600");
  });
}

if (isTurn(0)) {
  suite("Debian as the README installs it", testSession, ["mmdebstrap", "ssh", "ssh-keygen"]);
  suite("a Debian guest", testGuest, [
    "mmdebstrap",
    "apt-config",
    "ssh",
    "ssh-keygen",
    "mksquashfs",
    "xorriso",
  ]);
}
