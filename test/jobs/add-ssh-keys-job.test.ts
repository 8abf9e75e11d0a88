import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { Guest } from "./guest.ts";
import { ROOT } from "./hook.ts";

// Namespaces and many processes are slow on a busy machine.
setDefaultTimeout(30_000);

const FILE = "system/root/.ssh/authorized_keys";
const KEYS = {
  "in/job.sh": readFileSync(join(ROOT, "jobs/add-ssh-keys.job"), "utf8"),
  "in/SSHKEYS": "ssh-key-1.pub\nssh-key-2.pub\n",
  "in/ssh-key-1.pub": "ssh-ed25519 AAAAone me@here\r\n",
  "in/ssh-key-2.pub": "# mine\nssh-rsa AAAAtwo",
};
const BOTH = "ssh-ed25519 AAAAone me@here\nssh-rsa AAAAtwo\n";

const mode = (guest: Guest, name: string) => statSync(guest.temp.path(name)).mode & 0o777;

describe.skipIf(process.getuid!() !== 0)("add-ssh-keys.job (needs root)", () => {
  test("a system without keys", async () => {
    using guest = new Guest(KEYS);
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("0\n");
    expect(guest.read(FILE)).toBe(BOTH);
    expect(mode(guest, FILE)).toBe(0o600);
    expect(mode(guest, "system/root/.ssh")).toBe(0o700);
    expect(readdirSync(guest.temp.path("system/root/.ssh"))).toEqual(["authorized_keys"]);
  });

  test("keeps existing keys, with a backup, and adds no duplicates", async () => {
    const old = '# theirs\nfrom="a b" ssh-ed25519 AAAAone other';
    using guest = new Guest({ ...KEYS, [FILE]: old });
    chmodSync(guest.temp.path(FILE), 0o644);
    await guest.run();
    expect(guest.read(FILE)).toBe(`${old}\nssh-rsa AAAAtwo\n`);
    expect(guest.read(`${FILE}.bak`)).toBe(old);
    expect(mode(guest, FILE)).toBe(0o600);
    await guest.run();
    expect(guest.read(FILE)).toBe(`${old}\nssh-rsa AAAAtwo\n`);
    expect(readdirSync(guest.temp.path("system/root/.ssh")).toSorted()).toEqual([
      "authorized_keys",
      "authorized_keys.bak",
    ]);
  });

  test("uses /etc/openssh/authorized_keys/root if it exists", async () => {
    const openssh = "system/etc/openssh/authorized_keys/root";
    using guest = new Guest({ ...KEYS, [openssh]: "" });
    await guest.run();
    expect(guest.read(openssh)).toBe(BOTH);
    expect(guest.read(FILE)).toBeUndefined();
  });

  test("does not follow a symlink that points outside the system", async () => {
    using guest = new Guest({ ...KEYS, "system/root/x": "" });
    symlinkSync("/tmp", guest.temp.path("system/root/.ssh"));
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("1\n");
    expect(guest.read("out/job.log")).toContain("/root/.ssh of the installed system: it points outside");
  });

  test("fails for files without a key", async () => {
    using guest = new Guest({ ...KEYS, "in/SSHKEYS": "SSHKEYS\n" });
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("1\n");
    expect(guest.read(FILE)).toBeUndefined();
  });
});
