/** Networks other than the user-mode one: among VMs, by a bridge, a tap device and passt, as small Linux guests see them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binary, guests, until, type Sandbox } from "./harness.ts";
import { configure, qemuPid, rootTest, shell, smallSandbox, suiteInTurn } from "./tools.ts";

/** Gets an address by DHCP. */
const LEASE = `cat >/lease.sh <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
[ -z "$router" ] || ip route add default via $router
echo "nameserver $dns" >/etc/resolv.conf
echo "LEASE ip=$ip router=\${router:-none} domain=$domain hostname=$hostname."
END
chmod +x /lease.sh
ip link set lo up
lease() {
  ip link set $1 up
  udhcpc -i $1 -n -q -t 20 -T 1 -s /lease.sh || echo "NO LEASE $1"
}
`;

/** Gets addresses, and looks for each peer by its name until it answers. */
const script = (peers: readonly string[], end: string): string => `${LEASE}
for i in /sys/class/net/eth*; do
  lease \${i##*/}
done
for peer in ${peers.join(" ")}; do
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    ip=$(nslookup $peer.lab | sed -n '/^Name/,$s/^Address[^:]*: *//p' | head -n 1)
    [ -n "$ip" ] && ping -c 1 -W 1 $ip >/dev/null && { echo "REACHED $peer $ip."; break; }
    sleep 1
  done
done
echo DONE
${end}
`;

const WAIT = "while :; do sleep 60; done";

let runtime: string;
const boxes: Sandbox[] = [];

/** A VM with a Linux guest, on the networks of this test. */
async function makeVm(
  name: string,
  peers: readonly string[],
  options: readonly string[],
  end = WAIT,
): Promise<Sandbox> {
  return makeGuest(name, script(peers, end), [...options, "create", name]);
}

async function makeGuest(name: string, guest: string, create: readonly string[]): Promise<Sandbox> {
  const built = await guests();
  const box = smallSandbox(name);
  boxes.push(box);
  box.environment.XDG_RUNTIME_DIR = runtime;
  box.environment.XDG_CACHE_HOME = join(runtime, "cache");
  configure(box, "MEMORY=160M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n");
  mkdirSync(join(box.home, ".ssh"), { recursive: true });
  writeFileSync(join(box.home, ".ssh/id_ed25519.pub"), "ssh-ed25519 AAAA me\n");
  await box.ok(create);
  box.write("guest.sh", guest);
  box.write("vm.defaults", `-kernel ${built.kernel} -initrd ${built.initrd} -append "${built.append}"\n`);
  return box;
}

const done = (box: Sandbox): Promise<unknown> =>
  until("the guest's report", () => box.console().includes("DONE"));

/** A bridge, a tap device on it, and a DHCP server there; qemu-bridge-helper's list. For a network namespace of its own. */
const LAB = [
  "ip link set lo up",
  "ip link add vmbr0 type bridge && ip addr add 10.9.9.1/24 dev vmbr0 && ip link set vmbr0 up",
  "ip tuntap add vmtap0 mode tap && ip link set vmtap0 master vmbr0 up",
  "mount -t sysfs sysfs /sys",
  "mkdir -p /etc/qemu && mount -t tmpfs tmpfs /etc/qemu && echo allow vmbr0 >/etc/qemu/bridge.conf",
  "dnsmasq --conf-file=/dev/null --user=root --pid-file= --port=0 --leasefile-ro --interface=vmbr0 --bind-interfaces --dhcp-range=10.9.9.20,10.9.9.90",
].join(" && ");

/** Waits for a word on the console. */
const said = (word: string): string =>
  `for i in $(seq 1500); do grep -q ${word} .work/console.log && break; sleep 0.2; done`;

/** Runs a script of sh in namespaces of its own, with the environment of a VM. */
const inLab = (box: Sandbox, commands: string): Promise<string> =>
  shell(
    `env -i ${Object.entries(box.env())
      .map(([name, value]) => `${name}='${value}'`)
      .join(" ")} unshare --net --mount --pid --fork --kill-child sh -euc '${LAB} && ${commands}'`,
    box.host,
  );

/** Another user can neither hold the network's pipe, nor enter its directory or its namespaces. */
async function refuseOtherUser(): Promise<void> {
  const directory = join(runtime, "vm/networks/lab");
  const pid = readFileSync(join(directory, "ready"), "utf8").trim();
  const tries = [
    `exec 3<>${directory}/members`,
    `ls ${directory}`,
    `nsenter --target ${pid} --user --net true`,
    `nsenter --target ${pid} --net true`,
  ];
  for (const words of tries) {
    const other = Bun.spawnSync([
      "setpriv",
      "--reuid=65534",
      "--regid=65534",
      "--clear-groups",
      "sh",
      "-c",
      words,
    ]);
    expect([words, other.exitCode === 0, other.stderr.toString()]).toEqual([
      words,
      false,
      expect.stringMatching(/denied|not permitted/i),
    ]);
  }
}

/** Processes of networks in the runtime directory, a line each: the pid and the command. */
async function networkProcesses(): Promise<string> {
  const all = await shell(`grep -sl "XDG_RUNTIME_DIR=${runtime}" /proc/[0-9]*/environ || true`, "/");
  return all
    .split("\n")
    .filter(Boolean)
    .map((path) => {
      try {
        const words = readFileSync(path.replace("environ", "cmdline"), "utf8").split("\0").slice(0, 3);
        return [path.split("/")[2]!, ...words].join(" ");
      } catch {
        return "";
      }
    })
    .filter(Boolean)
    .join("\n");
}

suiteInTurn(7, 8)("networks", () => {
  beforeAll(() => {
    runtime = realpathSync(mkdtempSync(join(tmpdir(), "vm-run-")));
  });
  afterAll(() => {
    for (const box of boxes) box[Symbol.dispose]();
    rmSync(runtime, { recursive: true, force: true });
  });

  rootTest(
    "a bridge, a tap device and passt: the guest gets an address by each, and passt ends with it",
    async () => {
      const box = await makeVm(
        "cards",
        [],
        ["--net=bridge=vmbr0", "--net=tap=vmtap0", "--net=passt"],
        "poweroff -f",
      );
      await inLab(
        box,
        `ip link add vmout0 type bridge && ip addr add 10.9.8.7/24 dev vmout0 && ip link set vmout0 up &&
          ip route add default via 10.9.8.1 && ${binary} run`,
      );
      const leases = [...box.console().matchAll(/LEASE ip=(\S+)/g)].map(([, ip]) => ip);
      expect(leases).toEqual([
        expect.stringMatching(/^10\.9\.9\./),
        expect.stringMatching(/^10\.9\.9\./),
        "10.9.8.7",
      ]);
      await until("no passt", async () => (await networkProcesses()) === "");
    },
  );

  rootTest(
    "a guest on net=NAME reaches the outside, has its cards in cloud-init's network-config, and gets cards on a bridge and a tap device while it runs",
    async () => {
      const guest = `${LEASE}
lease eth0
echo "OUTSIDE $(wget -q -O - http://10.9.8.1/hello)."
mkdir -p /seed; for disk in /dev/vd?; do mount -t iso9660 -o ro $disk /seed 2>/dev/null && break; done
mac=$(cat /sys/class/net/eth0/address)
grep -q '"macaddress": "'$mac'"' /seed/network-config && grep -q '"dhcp4": true' /seed/network-config && echo "SEED names $mac."
echo READY
for i in eth1 eth2; do
  while [ ! -e /sys/class/net/$i ]; do sleep 1; done
  lease $i
done
echo DONE
${WAIT}
`;
      const box = await makeGuest("out", guest, ["--net=net=lab", "create", "--cloud-init", "out"]);
      writeFileSync(join(box.top, "hello"), "from the outside");
      // What is outside has a namespace of its own, with a web server.
      await inLab(
        box,
        `mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add world &&
          ip link add vmout0 type veth peer name up0 netns world &&
          ip addr add 10.9.8.7/24 dev vmout0 && ip link set vmout0 up && ip route add default via 10.9.8.1 &&
          ip -n world addr add 10.9.8.1/24 dev up0 && ip -n world link set up0 up &&
          ip netns exec world busybox httpd -p 10.9.8.1:80 -h ${box.top} &&
          ${binary} run --detach && ${said("READY")} &&
          ${binary} nic add bridge=vmbr0 && ${binary} nic add tap=vmtap0 && ${said("DONE")} &&
          ${binary} nic list --json >nics.json && ${binary} stop --force`,
      );
      const console = box.console();
      expect(console).toContain("OUTSIDE from the outside.");
      const nics = JSON.parse(box.read("nics.json")) as { number: number; network: string; mac: string }[];
      expect(nics.map(({ number, network }) => `${number}: ${network}`)).toEqual([
        "1: net=lab",
        "2: bridge=vmbr0",
        "3: tap=vmtap0",
      ]);
      expect(console).toContain(`SEED names ${nics[0]!.mac}.`);
      expect(console.match(/LEASE ip=10\.9\.9\./g)).toHaveLength(2);
      await until("no process of the network", async () => (await networkProcesses()) === "");
    },
  );

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
      await refuseOtherUser();
      // The last ones end by kill -9, of qemu as of anything.
      await all[0]!.ok(["stop", "--force"]);
      const dnsmasq = /^(\d+) dnsmasq/m.exec(await networkProcesses())![1]!;
      process.kill(Number(dnsmasq), "SIGKILL");
      await all[0]!.ok(["run", "--detach"]);
      await until("a lease of the next dnsmasq", () => all[0]!.console().includes("LEASE"));
      await all[0]!.ok(["stop", "--force"]);
      for (const box of all.slice(1)) process.kill(await qemuPid(box), "SIGKILL");
      await until("no process of the network", async () => (await networkProcesses()) === "");
      // Its address stays.
      await all[1]!.ok(["run", "--detach"]);
      await until("the same lease", () => all[1]!.console().includes(`LEASE ip=${leases[1]![1]} `));
      await all[1]!.ok(["stop", "--force"]);
      await until("no process of the network", async () => (await networkProcesses()) === "");
    });
  });
});
