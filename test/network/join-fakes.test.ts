import { expect, test } from "bun:test";
import { chmodSync, closeSync, mkdirSync, readSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { readMembers, recordPath, writeMembers } from "../../src/network/addresses.ts";
import { joinNetwork, type Joined } from "../../src/network/join.ts";
import { lifelinePath, type RuntimePlace } from "../../src/network/place.ts";
import { failureOf } from "../fixtures/failure.ts";
import { FakeLan } from "./fake-lan.ts";

const MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"];

/** What `joinNetwork` needs of the place. */
type Place = RuntimePlace & { cacheDirectory: string | undefined };

const joinLab = (place: Place, hostName: string, mac = MACS[0]!): Promise<Joined> =>
  joinNetwork(place, { network: "lab", outside: "off", mac, hostName, readUuid: () => undefined });

function leave(...all: Joined[]): void {
  for (const joined of all) {
    closeSync(joined.fd);
    joined[Symbol.dispose]();
  }
}

test("a card joins: it gets what was sent from the network's namespace, and the pipe; its address is recorded", async () => {
  using fake = new FakeLan();
  const joined = await joinLab(fake.place, "web");
  const content = Buffer.alloc(6);
  readSync(joined.fd, content, 0, 6, 0);
  expect(content.toString()).toBe("a card");
  expect(joined.lifeline).toBe(lifelinePath(fake.place, "lab"));
  expect(await Bun.file(fake.path("entered")).text()).toMatch(
    new RegExp(
      `^--target ${Number(fake.read("ready"))} --user --preserve-credentials --net -- .* __tap br0\n$`,
    ),
  );
  const [member, ...others] = readMembers(recordPath(fake.place.cacheDirectory, "lab"));
  expect(others).toEqual([]);
  expect(member).toMatchObject({ mac: MACS[0]!, name: "web" });
  expect(fake.read("leases/02-00-00-00-00-01")).toContain(`.${member!.host},web,`);
  leave(joined);
  await fake.ended();
});

test("cards that join at the same moment are in one network, with an address each", async () => {
  using fake = new FakeLan();
  const joined = await Promise.all(MACS.map((mac) => joinLab(fake.place, "web", mac)));
  expect(fake.read("starts").trim().split("\n")).toHaveLength(1);
  const members = readMembers(recordPath(fake.place.cacheDirectory, "lab"));
  expect(members.map(({ name }) => name).toSorted()).toEqual(["web", "web-2", "web-3"]);
  expect(new Set(members.map(({ host }) => host)).size).toBe(3);
  for (const { mac, host } of members)
    expect(fake.read(`leases/${mac.replaceAll(":", "-")}`)).toContain(`.${host},`);
  leave(...joined);
  await fake.ended();
});

test("a card that cannot be connected is refused with the words (74), and does not hold the network", async () => {
  using fake = new FakeLan();
  fake.program("nsenter", "echo 'Device br0 does not exist.' >&2; exit 1");
  const error = await failureOf(() => joinLab(fake.place, "web"));
  expect(error.exitCode).toBe(74);
  expect(error.message).toBe(
    "cannot join the network lab: nsenter exited with status 1:\n  Device br0 does not exist.",
  );
  await fake.ended();
});

test("a network without a free address takes no further card (69), and names the record", async () => {
  using fake = new FakeLan();
  const record = recordPath(fake.place.cacheDirectory, "lab");
  const all = Array.from({ length: 239 }, (_, index) => ({
    mac: `02:00:00:00:01:${(256 + index).toString(16).slice(1)}`,
    name: `n${index}`,
    host: 16 + index,
    vm: { directory: `/vms/n${index}`, uuid: "u" },
  }));
  writeMembers(record, all);
  const lab = { network: "lab", outside: "off", mac: MACS[0]!, hostName: "web" } as const;
  const error = await failureOf(() => joinNetwork(fake.place, { ...lab, readUuid: () => "u" }));
  expect(error.exitCode).toBe(69);
  expect(error.message).toBe("the network lab has no free address");
  expect(error.hint).toContain(`rm ${record}`);
});

test("a damaged record is written again", async () => {
  using fake = new FakeLan();
  const record = fake.write("cache/networks/lab.json", "{");
  const joined = await joinLab(fake.place, "web");
  expect(readMembers(record).map(({ mac }) => mac)).toEqual([MACS[0]!]);
  leave(joined);
  await fake.ended();
});

test("without a cache directory the record is where the network runs", async () => {
  using fake = new FakeLan();
  const joined = await joinLab({ ...fake.place, cacheDirectory: undefined }, "web");
  expect(readMembers(recordPath(fake.lab, "lab"))).toHaveLength(1);
  leave(joined);
  await fake.ended();
});

test("a directory that others can enter, or that is elsewhere, is refused (74)", async () => {
  using fake = new FakeLan();
  mkdirSync(fake.lab, { recursive: true, mode: 0o700 });
  chmodSync(fake.lab, 0o777);
  const open = await failureOf(() => joinLab(fake.place, "web"));
  expect(open.exitCode).toBe(74);
  expect(open.message).toStartWith(`refusing ${fake.lab}: it `);
  symlinkSync(fake.directory("elsewhere"), join(fake.lab, "../linked"));
  const linked = await failureOf(() =>
    joinNetwork(fake.place, {
      network: "linked",
      outside: "off",
      mac: MACS[0]!,
      hostName: "web",
      readUuid: () => undefined,
    }),
  );
  expect(linked.exitCode).toBe(74);
  expect(linked.message).toEndWith("linked: it is not a directory");
  expect(linked.hint).toContain("mv ");
});
