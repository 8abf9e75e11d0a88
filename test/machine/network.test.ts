import { describe, expect, test } from "bun:test";
import { explainNetwork, formatNetwork, MAX_NICS, parseNetwork } from "../../src/machine/network.ts";
import { deriveMac } from "../../src/machine/mac.ts";
import { PLACES } from "../../src/qemu/layout.ts";
import { nicsOf } from "../../src/vm/nics.ts";

const UUID = "123e4567-e89b-42d3-a456-426614174000";
const SETTINGS = { NETWORKS: [], USENETDEV: true, FORWARDS: ["hostfwd=tcp::1-:1"], MAC: "", UUID: "" };

test.each([
  "user",
  "none",
  "user,mac=02:00:00:00:00:01",
  "user,mac=02:00:00:00:00:01,link=down",
  "user,link=down",
])("%s is formatted as it was parsed", (text) => expect(formatNetwork(parseNetwork(text)!)).toBe(text));

test.each([
  "passt",
  "bridge=br0",
  "tap=tap_0.1,mac=02:00:00:00:00:01",
  "net=lab,outside=off,link=down",
  "net=l-2",
])("%s is formatted as it was parsed", (text) => expect(formatNetwork(parseNetwork(text)!)).toBe(text));

test.each([
  "",
  "usr",
  "user=x",
  "passt=x",
  "none,link=down",
  "bridge",
  "bridge=",
  "bridge=..",
  "bridge=a/b",
  "bridge=-b",
  "tap=more-than-15-bytes",
  "tap=a b",
  "net",
  "net=Lab",
  "net=-lab",
  "net=../x",
  `net=${"l".repeat(64)}`,
  "user,outside=off",
  "net=lab,outside=on",
  "net=lab,outside=off,outside=off",
  "user,mac=03:00:00:00:00:01",
])("%j is no network", (text) => expect(parseNetwork(text)).toBeUndefined());

test.each([
  ["net=Lab", "net=NAME with a network's name: 1 to 63 lower-case letters"],
  ["net=../x,outside=off", "net=NAME with a network's name"],
  ["bridge=a/b", "bridge=NAME with a bridge's name: 1 to 15 letters"],
  ["tap=more-than-15-bytes", "tap=NAME with a tap device's name: 1 to 15 letters"],
  ["net=", "user, passt, bridge=NAME"],
  ["net=lab,outside=on", "user, passt, bridge=NAME"],
  ["user=x", "user, passt, bridge=NAME"],
  ["constructor=x", "user, passt, bridge=NAME"],
])("the error about %j states the rule that it breaks", (text, said) =>
  expect(explainNetwork(text)).toStartWith(said),
);

test("a card on a network with other machines never has qemu's MAC address, the same in all", () => {
  const settings = { ...SETTINGS, NETWORKS: [parseNetwork("net=lab")!] };
  expect(nicsOf({ ...settings, UUID })[0]!.mac).toBe(deriveMac(UUID, 1));
  expect(nicsOf(settings)[0]!.mac).toBeUndefined();
  const MAC = "02:00:00:00:00:09";
  expect(nicsOf({ ...settings, UUID, MAC })[0]!.mac).toBe(MAC);
});

test("passt has the forwards, if it is the first card that takes them", () => {
  const NETWORKS = ["net=lab", "passt", "user"].map((text) => parseNetwork(text)!);
  expect(nicsOf({ ...SETTINGS, NETWORKS, UUID }).map(({ forwards }) => forwards)).toEqual([
    [],
    SETTINGS.FORWARDS,
    [],
  ]);
});

test("each card has a place", () => {
  expect(PLACES.nics).toBe(MAX_NICS);
});

describe("the cards", () => {
  test("without NETWORKS: the first one, by USENETDEV", () => {
    expect(nicsOf(SETTINGS)).toEqual([
      { number: 1, mac: undefined, link: "up", network: { kind: "user" }, forwards: SETTINGS.FORWARDS },
    ]);
    expect(nicsOf({ ...SETTINGS, USENETDEV: false })).toEqual([]);
  });

  test("the first one has the forwards; each its own MAC address, that of the UUID unless one is given", () => {
    const NETWORKS = ["none", "user", "user,mac=02:00:00:00:00:01,link=down"].map((text) =>
      parseNetwork(text)!,
    );
    expect(nicsOf({ ...SETTINGS, NETWORKS, UUID })).toEqual([
      {
        number: 2,
        mac: deriveMac(UUID, 2),
        link: "up",
        network: { kind: "user" },
        forwards: SETTINGS.FORWARDS,
      },
      { number: 3, mac: "02:00:00:00:00:01", link: "down", network: { kind: "user" }, forwards: [] },
    ]);
  });

  test.each([
    ["", UUID, undefined],
    ["auto", UUID, deriveMac(UUID, 1)],
    ["auto", "", undefined],
    ["02:00:00:00:00:09", UUID, "02:00:00:00:00:09"],
  ])("MAC=%s, UUID=%s: that of the first card is %s", (MAC, uuid, mac) => {
    expect(nicsOf({ ...SETTINGS, MAC, UUID: uuid })[0]!.mac).toBe(mac!);
  });
});
