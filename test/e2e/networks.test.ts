/** Networks other than the user-mode one: among VMs, by a bridge, a tap device and passt, as small Linux guests see them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { guests, until, type Sandbox } from "./harness.ts";
import { configure, qemuPid, shell, smallSandbox, suite } from "./tools.ts";

/** Gets an address by DHCP, and looks for each peer by its name until it answers. */
const script = (peers: readonly string[]): string => `
cat >/lease.sh <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
[ -z "$router" ] || ip route add default via $router
echo "nameserver $dns" >/etc/resolv.conf
echo "LEASE ip=$ip router=\${router:-none} domain=$domain hostname=$hostname."
END
chmod +x /lease.sh
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 1 -s /lease.sh || echo NO LEASE
for peer in ${peers.join(" ")}; do
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    ip=$(nslookup $peer.lab | sed -n '/^Name/,$s/^Address[^:]*: *//p' | head -n 1)
    [ -n "$ip" ] && ping -c 1 -W 1 $ip >/dev/null && { echo "REACHED $peer $ip."; break; }
    sleep 1
  done
done
echo DONE
while :; do sleep 60; done
`;

let runtime: string;
const boxes: Sandbox[] = [];

/** A VM with a Linux guest, on the networks of this test. */
async function makeVm(name: string, peers: readonly string[], options: readonly string[]): Promise<Sandbox> {
  const built = await guests();
  const box = smallSandbox(name);
  boxes.push(box);
  box.environment.XDG_RUNTIME_DIR = runtime;
  box.environment.XDG_CACHE_HOME = join(runtime, "cache");
  configure(box, "MEMORY=160M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n");
  await box.ok([...options, "create", name]);
  box.write("guest.sh", script(peers));
  box.write("vm.defaults", `-kernel ${built.kernel} -initrd ${built.initrd} -append "${built.append}"\n`);
  return box;
}

const done = (box: Sandbox): Promise<unknown> =>
  until("the guest's report", () => box.console().includes("DONE"));

/** Processes of networks in the runtime directory. */
async function networkProcesses(): Promise<string> {
  const all = await shell(`grep -sl "XDG_RUNTIME_DIR=${runtime}" /proc/[0-9]*/environ || true`, "/");
  return all
    .split("\n")
    .filter(Boolean)
    .map((path) => {
      try {
        return readFileSync(path.replace("environ", "cmdline"), "utf8").split("\0").slice(0, 3).join(" ");
      } catch {
        return "";
      }
    })
    .filter(Boolean)
    .join("\n");
}

suite("networks", () => {
  beforeAll(() => {
    runtime = realpathSync(mkdtempSync(join(tmpdir(), "vm-run-")));
  });
  afterAll(() => {
    for (const box of boxes) box[Symbol.dispose]();
    rmSync(runtime, { recursive: true, force: true });
  });

  describe("net=lab", () => {
    test("three VMs reach each other by name; nothing is left after the last", async () => {
      const names = ["one", "two", "three"];
      const all = await Promise.all(
        names.map((name) =>
          makeVm(
            name,
            names.filter((other) => other !== name),
            ["--net=net=lab"],
          ),
        ),
      );
      for (const box of all) await box.ok(["run", "--detach"]);
      await Promise.all(all.map(done));
      const leases = all.map((box) =>
        /LEASE ip=(\S+) router=(\S+) domain=lab hostname=(\S+)\./.exec(box.console()),
      );
      const prefix = leases[0]![1]!.replace(/\.\d+$/, "");
      expect(leases.map((lease) => lease!.slice(2))).toEqual(names.map((name) => [`${prefix}.1`, name]));
      for (const [index, box] of all.entries())
        for (const [other, peer] of names.entries())
          if (other !== index) expect(box.console()).toContain(`REACHED ${peer} ${leases[other]![1]}.`);
      const status = JSON.parse((await all[0]!.ok(["status", "--json"])).stdout);
      expect(status.nics).toMatchObject([{ network: "net=lab" }]);
      // The last ones end by kill -9, of qemu as of anything.
      await all[0]!.ok(["stop", "--force"]);
      expect(await networkProcesses()).toContain("dnsmasq");
      for (const box of all.slice(1)) process.kill(await qemuPid(box), "SIGKILL");
      await until("no process of the network", async () => (await networkProcesses()) === "");
      // Its address stays.
      await all[1]!.ok(["run", "--detach"]);
      await until("a lease", () => all[1]!.console().includes("LEASE"));
      expect(all[1]!.console()).toContain(`LEASE ip=${leases[1]![1]} `);
      await all[1]!.ok(["stop", "--force"]);
      await until("no process of the network", async () => (await networkProcesses()) === "");
    });
  });
});
