import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { HookBench } from "./hook.ts";

const KEY = "ssh-ed25519 AAAAC3Nza me@here\n";

describe.each(["add-ssh-keys.pre", "run-ssh.pre"])("%s", (hook) => {
  test("copies existing keys, whatever their names", async () => {
    using bench = new HookBench();
    const keys = [
      bench.host("a/k.pub", KEY),
      bench.host("b/k.pub", "ssh-rsa B"),
      bench.host("-n $(x)\n", KEY),
    ];
    const { status, output } = await bench.run(hook, {
      SSHKEYS: [...keys, join(bench.hostdir, "none.pub"), "", bench.hostdir],
    });
    expect({ status, output: hook === "run-ssh.pre" ? "" : output }).toEqual({ status: 0, output: "" });
    expect(bench.read("SSHKEYS")).toBe("ssh-key-1.pub\nssh-key-2.pub\nssh-key-3.pub\n");
    expect(bench.read("ssh-key-1.pub")).toBe(KEY);
    expect(bench.read("ssh-key-2.pub")).toBe("ssh-rsa B");
    expect(bench.read("ssh-key-3.pub")).toBe(KEY);
  });

  test("resolves a relative path from HOSTDIR", async () => {
    using bench = new HookBench();
    bench.host("k.pub", KEY);
    expect((await bench.run(hook, { SSHKEYS: ["k.pub"] })).status).toBe(0);
    expect(bench.read("ssh-key-1.pub")).toBe(KEY);
  });

  test.each<{ keys: string[] }>([{ keys: [] }, { keys: ["/nonexistent/k.pub"] }])(
    "no existing key: $keys",
    async ({ keys }) => {
      using bench = new HookBench();
      const { status, output } = await bench.run(hook, { SSHKEYS: keys });
      expect(status).toBe(1);
      expect(output).toContain("no such file in SSHKEYS");
      expect(output).toContain("ssh-keygen -t ed25519");
    },
  );

  test("refuses a private key", async () => {
    using bench = new HookBench();
    const key = bench.host("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n");
    const { status, output } = await bench.run(hook, { SSHKEYS: [key] });
    expect(status).toBe(1);
    expect(output).toContain(`refusing ${key} in SSHKEYS: it is a private key`);
    expect(bench.list()).toEqual(["SSHKEYS"]);
  });
});

describe("run-ssh.pre prints how to log in", () => {
  test.each<[Record<string, string | string[]>, string | undefined]>([
    [{ FORWARDS: "hostfwd=tcp::5555-:22" }, "ssh -p 5555 root@localhost\n"],
    [{ FORWARDS: ["hostfwd=udp::1-:2", "hostfwd=tcp:127.0.0.1:5556-:22"] }, "ssh -p 5556 root@127.0.0.1\n"],
    [{ FORWARDS: "hostfwd=tcp::1-:22", RESCUE_FORWARDS: "hostfwd=tcp::2-:22" }, "ssh -p 2 root@localhost\n"],
    [{ FORWARDS: "hostfwd=tcp:[::1]:7-:22", RESCUE_FORWARDS: [] }, "ssh -p 7 root@::1\n"],
    [{ FORWARDS: "hostfwd=tcp::8-:220" }, undefined],
    [{ FORWARDS: "hostfwd=tcp::0-10.0.2.15:22" }, "ssh -p 0 root@localhost\n"],
    [{}, undefined],
  ])("%j", async (variables, login) => {
    using bench = new HookBench();
    bench.host("k.pub", KEY);
    const { status, output } = await bench.run("run-ssh.pre", { SSHKEYS: ["k.pub"], ...variables });
    expect(status).toBe(0);
    expect(bench.read("LOGIN")).toBe(login);
    expect(output.includes("port 22 of the rescue is not forwarded")).toBe(login === undefined);
  });
});
