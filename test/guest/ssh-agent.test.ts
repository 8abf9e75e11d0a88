/** Real ssh, ssh-agent and sshd on a loopback port instead of a guest's. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { expect } from "bun:test";
import { buildSshOptions, findKeys } from "../../src/guest/ssh.ts";
import { Temp } from "../fixtures/temp.ts";
import { testIf } from "../fixtures/needs.ts";

const SSHD = "/usr/sbin/sshd";
/** sshd(8) as a user other than root accepts that user only if it can read the shadow file. */
const able =
  process.getuid!() === 0 &&
  existsSync(SSHD) &&
  ["ssh", "ssh-agent"].every((name) => Bun.which(name) !== null);

/** sshd_config(5): MaxAuthTries. */
const MORE_KEYS_THAN_TRIES = 8;

async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen({ port: 0, host: "127.0.0.1" }, resolve);
  await promise;
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

const makeKey = (path: string): void =>
  void Bun.spawnSync(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]);

testIf(able, "root, sshd, ssh and ssh-agent")(
  "an agent with more keys than sshd allows attempts: ssh offers the VM's key",
  async () => {
    using temp = new Temp();
    for (const name of ["host", "own"]) makeKey(temp.path(name));
    const port = await freePort();
    mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
    const config = [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${temp.path("host")}`,
      `AuthorizedKeysFile ${temp.path("own.pub")}`,
      "StrictModes no",
      "UsePAM no",
      "PasswordAuthentication no",
      `PidFile ${temp.path("sshd.pid")}`,
    ];
    const file = temp.write("sshd_config", `${config.join("\n")}\n`);
    const server = Bun.spawn([SSHD, "-D", "-f", file, "-E", temp.path("sshd.log")]);
    const socket = temp.path("agent.sock");
    const agent = Bun.spawn(["ssh-agent", "-D", "-a", socket], { stdout: "ignore" });
    try {
      while (!existsSync(socket) || !existsSync(temp.path("sshd.pid"))) await Bun.sleep(20);
      const env = { ...process.env, SSH_AUTH_SOCK: socket, HOME: temp.top };
      for (let index = 0; index < MORE_KEYS_THAN_TRIES; index++) {
        makeKey(temp.path(`other${index}`));
        Bun.spawnSync(["ssh-add", "-q", temp.path(`other${index}`)], { env });
      }
      const keys = findKeys({ hostdir: temp.top, settings: { SSHKEYS: ["own.pub"] } }, true);
      const access = { port, user: "root", knownHosts: temp.path("known"), alias: "vm", keys };
      const argv = [
        "ssh",
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        ...buildSshOptions(access),
        "127.0.0.1",
        "true",
      ];
      const child = Bun.spawn(argv, { env, stderr: "pipe" });
      const printed = await new Response(child.stderr).text();
      expect(`${await child.exited} ${printed}${readFileSync(temp.path("sshd.log"), "utf8")}`).toMatch(/^0 /);
    } finally {
      server.kill();
      agent.kill();
      await server.exited;
    }
  },
);
