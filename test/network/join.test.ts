import { beforeEach, expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { prefixOf, readMembers } from "../../src/network/addresses.ts";
import { enterNetwork } from "../../src/network/join.ts";
import type { Lan } from "../../src/network/lan.ts";
import { findProgram } from "../../src/process/exec.ts";
import { testIf } from "../fixtures/needs.ts";
import { Temp } from "../fixtures/temp.ts";

const A = "02:00:00:00:00:01";
const B = "02:00:00:00:00:02";

const NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"];
const canNet =
  ["dnsmasq", "ip", "nsenter", "unshare"].every((program) => findProgram(program) !== undefined) &&
  Bun.spawnSync(NAMESPACES).exitCode === 0;

let uuids: Record<string, string> = {};
beforeEach(() => void (uuids = { "/vm/a": "1", "/vm/b": "2" }));

/** The VM `web` of this directory enters the network `lab`. */
const enter = (temp: Temp, mac: string, directory: string, outside: "on" | "off" = "off"): Promise<Lan> =>
  enterNetwork(temp.directory("lab"), temp.path("lab.json"), {
    network: "lab",
    outside,
    mac,
    hostName: "web",
    vm: { directory, uuid: uuids[directory]! },
    readUuid: (place) => uuids[place],
  });

const names = (temp: Temp): string[][] =>
  readMembers(temp.path("lab.json")).map(({ mac, name }) => [mac, name]);

/** Addresses of a name, as the network's server answers. */
function lookUp({ pid }: Lan, name: string): string[] {
  const program = `const resolver = new (require("node:dns").promises.Resolver)();
    resolver.setServers(["${prefixOf("lab")}.1"]);
    resolver.resolve4("${name}").then((all) => console.log(all.join("\\n")), () => {});`;
  const inside = ["nsenter", "--target", String(pid), "--user", "--net", "--"];
  const { stdout } = Bun.spawnSync([...inside, process.execPath, "-e", program]);
  return stdout.toString().split("\n").filter(Boolean);
}

const addressOf = (temp: Temp, mac: string): string =>
  `${prefixOf("lab")}.${readMembers(temp.path("lab.json")).find((one) => one.mac === mac)!.host}`;

testIf(canNet, "user namespaces, iproute2 and dnsmasq")(
  "a card that a running network refuses leaves no record (75)",
  async () => {
    using temp = new Temp();
    using _first = await enter(temp, A, "/vm/a");
    await expect(enter(temp, B, "/vm/b", "on")).rejects.toThrow("running with outside=off");
    expect(names(temp)).toEqual([[A, "web"]]);
    expect(existsSync(temp.path("lab/hosts/02-00-00-00-00-02"))).toBe(false);
  },
);

testIf(canNet, "user namespaces, iproute2 and dnsmasq")(
  "a VM that was created again gets its name, also from a running name server",
  async () => {
    using temp = new Temp();
    using first = await enter(temp, A, "/vm/a");
    expect(lookUp(first, "web")).toEqual([addressOf(temp, A)]);
    (await enter(temp, B, "/vm/b"))[Symbol.dispose]();
    expect(names(temp)).toContainEqual([B, "web-2"]);
    delete uuids["/vm/a"];
    using second = await enter(temp, B, "/vm/b");
    expect(names(temp)).toEqual([
      [A, "web-2"],
      [B, "web"],
    ]);
    for (let count = 0; count < 50 && lookUp(second, "web").join() !== addressOf(temp, B); count++)
      await Bun.sleep(50);
    expect(lookUp(second, "web")).toEqual([addressOf(temp, B)]);
    expect(lookUp(second, "web-2")).toEqual([addressOf(temp, A)]);
    expect(readFileSync(temp.path("lab/leases/02-00-00-00-00-02"), "utf8")).toContain(",web,");
  },
);
