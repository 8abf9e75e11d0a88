import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../src/process/exec.ts";
import { Temp } from "../fixtures/temp.ts";
import { ROOT } from "./hook.ts";

/** Shares are bind mounts, the machine is a mount and PID namespace: needs root. */
const FAKES: Readonly<Record<string, string>> = {
  mount: `#!/bin/bash
if [ "$1" = /dev/bench-root ]; then exec /bin/mount --bind /mnt/bench/system "$2"; fi
[ "$1 $2" = "-t 9p" ] || exec /bin/mount "$@"
[ -d "/mnt/bench/$5" ] || { echo "no tag $5"; exit 1; }
/bin/mount --bind "/mnt/bench/$5" "$6"
`,
  // Hides the volumes of the test's own machine.
  ...Object.fromEntries(["modprobe", "mdadm", "vgchange", "vgmknodes"].map((name) => [name, "#!/bin/sh\n"])),
  "mount-system": "#!/bin/bash\nmkdir -p /mnt/system1 && /bin/mount --bind /mnt/bench/system /mnt/system1\n",
  // The real one would flush all disks of this machine.
  sync: "#!/bin/sh\necho flushed >/mnt/bench/synced\n",
  blkid: "#!/bin/sh\ncase $* in *LABEL=bench) echo /dev/bench-root ;; esac\n",
  poweroff: `#!/bin/bash
echo "$*" >/mnt/bench/poweroff
cat /proc/self/mountinfo >/mnt/bench/mounts
kill -9 $PPID
`,
};

/** The runner's last resort would power off the test's own machine: disabled here. */
const START = `
mount --make-rprivate / && { [ ! -e /proc/sysrq-trigger ] || mount --bind /dev/null /proc/sysrq-trigger; } && mount -t tmpfs none /mnt && mkdir /mnt/bench &&
mount --bind "$1" /mnt/bench && mount -t tmpfs none /tmp || exit 99
PATH=/mnt/bench/bin:$PATH
bash "$2"
exit 0
`;

/** Replaces the rescue: runs the shell code of the runner and the jobs, without qemu. */
export class Guest implements Disposable {
  readonly temp: Temp = new Temp();

  constructor(files: Readonly<Record<string, string>>) {
    for (const name of ["in", "out", "system/etc"]) this.temp.directory(name);
    for (const [name, text] of Object.entries(FAKES)) {
      this.temp.write(join("bin", name), text);
      chmodSync(this.temp.path("bin", name), 0o700);
    }
    for (const [name, text] of Object.entries(files)) this.temp.write(name, text);
  }

  /** Runs the runner until it powers off. */
  async run(): Promise<string> {
    const runner = join(ROOT, "scripts/rescue/runner");
    // A copy, as the repository may be below a mount point.
    this.temp.write("runner", readFileSync(runner));
    const unshare = ["unshare", "-mpf", "--kill-child", "--mount-proc"];
    const done = await exec([...unshare, "bash", "-c", START, "guest", this.temp.top, "/mnt/bench/runner"], {
      anyStatus: true,
    });
    if (done.status !== 0) throw new Error(`no namespace: ${done.stderr}`);
    return done.stdout;
  }

  read(name: string): string | undefined {
    const path = this.temp.path(name);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  }

  [Symbol.dispose](): void {
    this.temp[Symbol.dispose]();
  }
}
