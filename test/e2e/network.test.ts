/** Cards, links and forwards of a running Linux guest: as it sees them, and the same at the next start. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import {
  ask,
  configure,
  expectError,
  freePort,
  sampled,
  seed,
  smallSandbox,
  suiteInTurn,
  turnsOf,
  testInTurn,
} from "./tools.ts";

/** Prints each card's PCI address, MAC address and carrier whenever they change. */
const SCRIPT = `
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
mkdir /www; echo hello from the guest >/www/index.html; httpd -p 80 -h /www
cards() {
  for i in /sys/bus/pci/devices/*/virtio*/net/*; do
    d=\${i#/sys/bus/pci/devices/}
    [ -e $i ] && echo "\${d%%/*}=$(cat $i/address)=$(cat $i/carrier)"
  done
}
while :; do
  for i in /sys/class/net/eth*; do ip link set \${i##*/} up; done
  now=$(cards | tr '\\n' ' ')
  [ "$now" = "$last" ] || echo "CARDS $now."
  last=$now
  usleep 200000
done
`;

interface Card {
  address: string;
  mac: string;
  up: boolean;
}

/** The cards in the guest's last complete line. */
function cardsOf(box: Sandbox): Card[] {
  const line = [...box.console().matchAll(/CARDS (.*)\.$/gm)].at(-1)?.[1] ?? "";
  return line
    .split(" ")
    .filter(Boolean)
    .map((text) => {
      const [address = "", mac = "", carrier] = text.split("=");
      return { address, mac, up: carrier === "1" };
    });
}

const cardsAre = (box: Sandbox, what: string, fits: (cards: Card[]) => boolean): Promise<Card[]> =>
  until(what, () => {
    const cards = cardsOf(box);
    return fits(cards) && cards;
  });

/** Does no process listen on a port? */
function isRefused(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ port, host: "127.0.0.1" }, () => (socket.destroy(), resolve(false)));
  socket.on("error", () => resolve(true));
  return promise;
}

/** What qemu has of networks, by its own account. */
async function infoNetwork(box: Sandbox): Promise<string> {
  const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
  try {
    return await qmp.executeUntyped("human-monitor-command", { "command-line": "info network" });
  } finally {
    qmp.close();
  }
}

suiteInTurn(3, 8)("a running guest", () => {
  describe.each(sampled(["pc", "q35"], 0, 1, turnsOf(8)))("on %s", (board) => {
    let box: Sandbox;

    beforeAll(async () => {
      const built = await guests();
      box = smallSandbox();
      configure(box, `MEMORY=512M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n${board === "q35" ? "UEFI=1\n" : ""}`);
      await box.ok(["create", "L"]);
      box.write("guest.sh", SCRIPT);
      box.write("vm.defaults", `-kernel ${built.kernel} -initrd ${built.initrd} -append "${built.append}"\n`);
      await box.ok(["run", "--detach"]);
      await until("the guest's report", () => box.console().includes("CARDS "));
    });
    afterAll(() => box?.[Symbol.dispose]());

    const json = async (...words: string[]): Promise<any> =>
      JSON.parse((await box.ok([...words, "--json"])).stdout);

    testInTurn(2, 4)(
      "gets a card, loses it and gets it again; the next start has it at the same place",
      async () => {
        await box.ok(["nic", "add"]);
        const [first, added] = await cardsAre(box, "a second card", (cards) => cards.length === 2);
        expect((await json("status")).nics).toMatchObject([{ mac: first!.mac }, { mac: added!.mac }]);
        await box.ok(["nic", "remove", "2"]);
        await cardsAre(box, "one card", (cards) => cards.length === 1);
        expect(await infoNetwork(box)).not.toContain("net1");
        await box.ok(["nic", "add", "user", "--mac=02:00:00:00:00:07"]);
        const again = await cardsAre(box, "the card again", (cards) => cards.length === 2);
        expect(again[1]).toMatchObject({ address: added!.address, mac: "02:00:00:00:00:07" });
        await box.ok(["restart"]);
        const after = await cardsAre(box, "both cards at the next start", (cards) => cards.length === 2);
        expect(after.map(({ address, mac }) => [address, mac])).toEqual(
          again.map(({ address, mac }) => [address, mac]),
        );
      },
    );

    testInTurn(1, 4)("a link that is down: at once, and from its start", async () => {
      await box.ok(["nic", "down", "1"]);
      await cardsAre(box, "a link down", ([card]) => card?.up === false);
      await box.ok(["restart"]);
      await cardsAre(box, "a link down from the start", ([card]) => card?.up === false);
      expect((await json("status")).state).toBe("running");
      await box.ok(["nic", "up", "1"]);
      await cardsAre(box, "a link up", ([card]) => card?.up === true);
    });

    test("forwards: reachable at once, refused where taken, gone at once", async () => {
      const port = await freePort();
      await box.ok(["forward", "add", `tcp:127.0.0.1:${port}-10.0.2.15:80`]);
      const answer = (): Promise<string> => ask(port, "GET / HTTP/1.0\r\n\r\n");
      expect(await until("an answer by HTTP", answer)).toContain("hello from the guest");
      expectError(await box.vm(["forward", "add", `tcp:127.0.0.1:${port}-10.0.2.15:81`]), 64, /each port/);
      const other = await freePort();
      await box.ok(["forward", "add", "--temporary", `tcp:127.0.0.1:${other}-10.0.2.15:80`]);
      expect(await until("an answer", () => ask(other, "GET / HTTP/1.0\r\n\r\n"))).toContain("hello");
      await box.ok(["forward", "remove", String(port)]);
      expect(await answer()).toBe("");
      expect((await json("status")).forwards).toEqual([`hostfwd=tcp:127.0.0.1:${other}-10.0.2.15:80`]);
      await box.ok(["forward", "remove", "--temporary", String(other)]);
    });

    test("changes at random: status agrees with qemu and the guest, and no netdev is left", async () => {
      const ports = await Promise.all(Array.from({ length: 4 }, freePort));
      let state = seed + 1;
      const random = (below: number): number => {
        state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
        return Math.floor((state / 2 ** 31) * below);
      };
      const changes = [
        () => ["nic", "add"],
        () => ["nic", "remove", String(2 + random(3))],
        () => ["nic", ["up", "down"][random(2)]!, String(1 + random(4))],
        () => ["forward", "add", `tcp:127.0.0.1:${ports[random(4)]}-10.0.2.15:80`],
        () => ["forward", "remove", String(ports[random(4)])],
      ];
      for (let count = 0; count < 30; count++) {
        const words = changes[random(changes.length)]!();
        // What is not there cannot be removed, and what is there not added.
        const { status, stderr } = await box.vm(words);
        if (![0, 64, 66, 69].includes(status!)) throw new Error(`${words.join(" ")}: ${status}\n${stderr}`);
      }
      const { nics, forwards, state: now, nextRun } = await json("status");
      expect([now, nextRun]).toEqual(["running", undefined]);
      const network = await infoNetwork(box);
      const ids = [...network.matchAll(/\b(net\d):/g)].map(([, id]) => id);
      expect(ids.toSorted()).toEqual(nics.map(({ number }: { number: number }) => `net${number - 1}`));
      for (const port of ports) {
        const forwarded = forwards.some((rule: string) => rule.includes(`:${port}-`));
        expect([port, await isRefused(port)]).toEqual([port, !forwarded]);
      }
      await cardsAre(box, "the cards of status", (cards) =>
        Bun.deepEquals(
          cards.map(({ mac, up }) => [mac, up ? "up" : "down"]),
          nics.map(({ mac, link }: { mac: string; link: string }) => [mac, link]),
        ),
      );
    });

    test("set: the running machine keeps its memory until the next run", async () => {
      await box.ok(["set", "-m", "640M"]);
      expect(await json("status")).toMatchObject({ memoryMiB: 512, nextRun: { MEMORY: "640M" } });
      await box.ok(["stop"]);
      expect((await json("status")).memoryMiB).toBe(640);
    });
  });
});
