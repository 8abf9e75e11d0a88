import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { Guest } from "./guest.ts";
import { ROOT } from "./hook.ts";

// Namespaces and many processes are slow on a busy machine.
setDefaultTimeout(30_000);

const OLD_ID = "0123456789abcdef0123456789abcdef";
const SYSTEM = {
  "in/job.sh": readFileSync(join(ROOT, "jobs/new-identity.job"), "utf8"),
  "in/HOSTNAME": "web2.example\n",
  "bin/ssh-keygen":
    '#!/bin/bash\nwhile [ "$1" != -f ]; do if [ "$1" = -t ]; then type=$2; fi; shift; done\nprintf "new %s\\n" "$type" >"$2"\nprintf "public %s\\n" "$type" >"$2.pub"\n',
  "system/etc/hostname": "web1.example\n",
  "system/etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1 web1.example web1\n10.0.0.1 web11\n# web1\n",
  "system/etc/machine-id": `${OLD_ID}\n`,
  "system/etc/ssh/ssh_host_ed25519_key": "old",
  "system/etc/ssh/ssh_host_ed25519_key.pub": "old",
  "system/etc/ssh/ssh_host_dsa_key": "old",
  "system/etc/openssh/ssh_host_rsa_key": "old",
  "system/etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=web1.example\n",
  "system/var/lib/systemd/random-seed": "seed",
};

const guestOf = (changes: Record<string, string> = {}): Guest => {
  const guest = new Guest({ ...SYSTEM, ...changes });
  chmodSync(guest.temp.path("bin/ssh-keygen"), 0o700);
  return guest;
};

describe.skipIf(process.getuid!() !== 0)("new-identity.job (needs root)", () => {
  test("renews host name, machine-id and SSH host keys, of ALT, too", async () => {
    using guest = guestOf();
    chmodSync(guest.temp.path("system/etc/openssh/ssh_host_rsa_key"), 0o640);
    await guest.run();
    expect([guest.read("out/STATUS"), guest.read("out/job.log")]).toEqual(["0\n", expect.any(String)]);
    expect(guest.read("system/etc/hostname")).toBe("web2.example\n");
    expect(guest.read("system/etc/hosts")).toBe(
      "127.0.0.1\tlocalhost\n127.0.1.1\tweb2.example\tweb2\n10.0.0.1 web11\n# web1\n",
    );
    expect(guest.read("system/etc/sysconfig/network")).toBe("NETWORKING=yes\nHOSTNAME=web2.example\n");
    const id = guest.read("system/etc/machine-id")!;
    expect(id).toMatch(/^[0-9a-f]{32}\n$/);
    expect(id).not.toContain(OLD_ID);
    expect(guest.read("system/etc/ssh/ssh_host_ed25519_key")).toBe("new ed25519\n");
    expect(guest.read("system/etc/ssh/ssh_host_ed25519_key.pub")).toBe("public ed25519\n");
    expect(guest.read("system/etc/ssh/ssh_host_dsa_key")).toBeUndefined();
    expect(guest.read("system/etc/openssh/ssh_host_rsa_key")).toBe("new rsa\n");
    expect(statSync(guest.temp.path("system/etc/openssh/ssh_host_rsa_key")).mode & 0o777).toBe(0o640);
    expect(guest.read("system/var/lib/systemd/random-seed")).toBeUndefined();
  });

  test("leaves an empty machine-id, which the first boot fills, and without a name the host name", async () => {
    using guest = guestOf({ "system/etc/machine-id": "", "in/HOSTNAME": "" });
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("0\n");
    expect(guest.read("system/etc/machine-id")).toBe("");
    expect(guest.read("system/etc/hostname")).toBe("web1.example\n");
  });

  test("a system with little in it", async () => {
    const { "in/job.sh": job, "bin/ssh-keygen": keygen } = SYSTEM;
    using guest = new Guest({ "in/job.sh": job, "in/HOSTNAME": "web2\n", "bin/ssh-keygen": keygen });
    await guest.run();
    expect([guest.read("out/STATUS"), guest.read("system/etc/hostname")]).toEqual(["0\n", "web2\n"]);
  });

  test("does not follow a symlink that points outside the system", async () => {
    using guest = guestOf();
    guest.temp.write("outside", "x");
    await Bun.$`rm ${guest.temp.path("system/etc/hostname")}`;
    symlinkSync("/etc/hostname", guest.temp.path("system/etc/hostname"));
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("1\n");
    expect(guest.read("out/job.log")).toContain("/etc/hostname of the installed system: it points outside");
  });

  test.each(["a b", "$(x)", "-x", "UPPER"])("refuses the host name %j", async (name) => {
    using guest = guestOf({ "in/HOSTNAME": `${name}\n` });
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("1\n");
    expect(guest.read("system/etc/machine-id")).toBe(`${OLD_ID}\n`);
  });
});
