import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import {
  prefixOf,
  readMembers,
  recordPath,
  withMember,
  writeMembers,
  type Keeping,
  type Member,
} from "../../src/network/addresses.ts";
import { Temp } from "../fixtures/temp.ts";

const MAC = "02:00:00:00:00:01";

const OTHER = "02:00:00:00:00:02";
const RUNS = { running: true, exists: () => true };
const join = (
  members: readonly Member[],
  mac: string,
  hostName: string,
  keeping = RUNS,
): Member | undefined => withMember(members, { mac, hostName }, keeping)?.at(-1);

describe("a member of a network", () => {
  test("gets the address that its MAC address yields, always the same", () => {
    const first = join([], MAC, "web")!;
    expect(first).toEqual(join([], MAC, "web")!);
    expect(first.host).toBeWithin(16, 255);
    expect(prefixOf("lab")).toMatch(/^10\.[1-9]\d*\.\d+$/);
    expect(prefixOf("lab")).not.toBe(prefixOf("lab2"));
  });

  test("keeps a recorded address, and takes a new name; another VM of that name gets a number", () => {
    const members = [
      { mac: MAC, name: "web", host: 77 },
      { mac: OTHER, name: "db", host: 78 },
    ];
    expect(join(members, MAC, "www")).toEqual({ mac: MAC, name: "www", host: 77 });
    expect(join(members, MAC, "db")).toEqual({ mac: MAC, name: "db-2", host: 77 });
  });

  test.each<[title: string, keeping: Keeping]>([
    ["no VM is on the network", { running: false, exists: () => true }],
    ["the VM that has it is gone", { running: true, exists: ({ name }) => name !== "web" }],
  ])("gets the name of its VM if %s; the other gets the number", (_title, keeping) => {
    const members = [
      { mac: OTHER, name: "web", host: 78 },
      { mac: "02:00:00:00:00:03", name: "web-2", host: 79 },
    ];
    const after = withMember(members, { mac: MAC, hostName: "web" }, keeping)!;
    expect(after.map(({ mac, name }) => [mac, name])).toEqual([
      [OTHER, "web-3"],
      ["02:00:00:00:00:03", "web-2"],
      [MAC, "web"],
    ]);
    expect(join(after, OTHER, "web")).toEqual({ mac: OTHER, name: "web-3", host: 78 });
  });

  test("gets the next free address if another has that; none if all are taken", () => {
    const { host } = join([], MAC, "web")!;
    const other = { mac: OTHER, name: "a", host };
    expect(join([other], MAC, "web")!.host).not.toBe(host);
    const all = Array.from({ length: 239 }, (_, index) => ({
      mac: `x${index}`,
      name: `n${index}`,
      host: 16 + index,
    }));
    expect(join(all.slice(1), MAC, "web")!.host).toBe(16);
    expect(join(all, MAC, "web")).toBeUndefined();
    const after = withMember(
      all,
      { mac: MAC, hostName: "web" },
      { running: true, exists: ({ host: at }) => at < 20 },
    );
    expect(after?.map(({ name }) => name)).toEqual(["n0", "n1", "n2", "n3", "web"]);
  });

  test("is recorded; what is damaged in the record is ignored", () => {
    using temp = new Temp();
    const path = recordPath(temp.top, "lab");
    expect(readMembers(path)).toEqual([]);
    const vm = { directory: "/srv/web", uuid: "4f1c0d6e-0000-4000-8000-000000000001" };
    const members = [{ mac: MAC, name: "web", host: 77, vm }];
    writeMembers(path, members);
    expect(readMembers(path)).toEqual(members);
    const bad = [
      { mac: MAC, name: "a\nb", host: 20 },
      { mac: "x", name: "b", host: 21 },
      { ...members[0], host: 3 },
      { ...members[0], vm: { directory: 5 } },
    ];
    writeFileSync(path, JSON.stringify({ members: [...bad, ...members, null] }));
    expect(readMembers(path)).toEqual(members);
    writeFileSync(path, "{");
    expect(readMembers(path)).toEqual([]);
  });
});
