import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Guest } from "./guest.ts";
import { ROOT } from "./hook.ts";

// Namespaces and many processes are slow on a busy machine.
setDefaultTimeout(30_000);

const JOB = readFileSync(join(ROOT, "jobs/post-install.job"), "utf8");

/** Contents of .in for a run of `script`. */
const files = (script: string, env = ""): Record<string, string> => ({
  "in/job.sh": JOB,
  "in/job.env": env,
  "in/post-install.sh": script,
  "system/run/.keep": "",
});

describe.skipIf(process.getuid!() !== 0)("post-install.job (needs root)", () => {
  test("mounts the system for chroot, and unmounts it after a failure", async () => {
    using guest = new Guest(
      files(`trap '' TERM; for dir in proc sys dev dev/pts run; do mountpoint -q "$DESTDIR/$dir" && echo "$dir"; done
run touch "$DESTDIR/etc/touched" "$DESTDIR/run/lost"; grep -c . /proc/mounts >/dev/null; fatal enough`),
    );
    await guest.run();
    expect(guest.read("out/job.log")).toBe(
      "proc\nsys\ndev\ndev/pts\nrun\nexec: touch /mnt/system1/etc/touched /mnt/system1/run/lost\nfatal: enough\n",
    );
    expect(guest.read("out/STATUS")).toBe("1\n");
    expect(guest.read("system/etc/touched")).toBe("");
    expect(guest.read("system/run/lost")).toBeUndefined();
    expect(guest.read("mounts")).not.toContain(" /mnt/system1");
  });

  test("reads parameters from job.env, whose paths may be the host's", async () => {
    using guest = new Guest(
      files(
        'echo "$SETUP_PASSWORD, $OTHER, $SETUP_HOSTNAME, $SETUP_PROFILE, $SETUP_SCRIPT, $DESTDIR, $-"; exit 42',
        'SETUP_PASSWORD=$(cat "$HOSTDIR/pw"); OTHER=$NOSUCH\nSETUP_PASSWORD=x\\ y\nOTHER=z\n',
      ),
    );
    await guest.run();
    expect(guest.read("out/job.log")).toMatch(
      /^cat: .*\nx y, z, , post-install, post-install.sh, \/mnt\/system1, \w*$/m,
    );
    expect(guest.read("out/STATUS")).toBe("42\n");
  });

  test("with DESTDIR the script mounts for itself", async () => {
    using guest = new Guest(files('echo "$DESTDIR"; ls /mnt', "DESTDIR=/mnt/own"));
    await guest.run();
    expect(guest.read("out/job.log")).toMatch(/^\/mnt\/own\nbench\n$/);
    expect(guest.read("out/STATUS")).toBe("0\n");
  });

  test("with SETUP_ROOTDEV mounts the system in /mnt/target for chroot", async () => {
    using guest = new Guest({
      ...files('echo "$DESTDIR"; mountpoint -q "$DESTDIR/proc"; touch "$DESTDIR/etc/touched"'),
      "in/ROOTDEV": "LABEL=bench\n",
    });
    await guest.run();
    expect(guest.read("out/job.log")).toBe("post-install: /dev/bench-root -> /mnt/target\n/mnt/target\n");
    expect(guest.read("out/STATUS")).toBe("0\n");
    expect(guest.read("system/etc/touched")).toBe("");
    expect(guest.read("mounts")).not.toContain(" /mnt/target");
  });

  test("fails for a missing root device", async () => {
    using guest = new Guest({ ...files("echo no"), "in/ROOTDEV": "LABEL=nosuch-label\n" });
    await guest.run();
    expect(guest.read("out/job.log")).toContain("no such device: SETUP_ROOTDEV=LABEL=nosuch-label");
    expect(guest.read("out/STATUS")).toBe("1\n");
  });

  test("exports constants of the .env", async () => {
    using guest = new Guest(files('echo "$SETUP_HOSTNAME"', "readonly SETUP_HOSTNAME=box SETUP_VERBOSE="));
    await guest.run();
    expect(guest.read("out/job.log")).toBe("box\n");
    expect(guest.read("out/STATUS")).toBe("0\n");
  });

  test("DEBUG and SETUP_VERBOSE trace", async () => {
    using guest = new Guest(files("echo traced", "SETUP_VERBOSE=1"));
    await guest.run();
    expect(guest.read("out/job.log")).toContain("+ echo traced\ntraced\n");
  });
});
