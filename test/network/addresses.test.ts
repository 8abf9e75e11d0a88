import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { findMember, prefixOf, readMembers, recordPath, writeMembers } from "../../src/network/addresses.ts";
import { Temp } from "../fixtures/temp.ts";

const MAC = "02:00:00:00:00:01";

describe("a member of a network", () => {
  test("gets the address that its MAC address yields, always the same", () => {
    const first = findMember([], MAC, "web")!;
    expect(first).toEqual(findMember([], MAC, "web")!);
    expect(first.host).toBeWithin(16, 255);
    expect(prefixOf("lab")).toMatch(/^10\.[1-9]\d*\.\d+$/);
    expect(prefixOf("lab")).not.toBe(prefixOf("lab2"));
  });

  test("keeps a recorded address, and takes a new name; another VM of that name gets a number", () => {
    const members = [
      { mac: MAC, name: "web", host: 77 },
      { mac: "02:00:00:00:00:02", name: "db", host: 78 },
    ];
    expect(findMember(members, MAC, "www")).toEqual({ mac: MAC, name: "www", host: 77 });
    expect(findMember(members, MAC, "db")).toEqual({ mac: MAC, name: "db-2", host: 77 });
  });

  test("gets the next free address if another has that; none if all are taken", () => {
    const { host } = findMember([], MAC, "web")!;
    const other = { mac: "02:00:00:00:00:02", name: "a", host };
    expect(findMember([other], MAC, "web")!.host).not.toBe(host);
    const all = Array.from({ length: 239 }, (_, index) => ({
      mac: `x${index}`,
      name: `n${index}`,
      host: 16 + index,
    }));
    expect(findMember(all.slice(1), MAC, "web")!.host).toBe(16);
    expect(findMember(all, MAC, "web")).toBeUndefined();
  });

  test("is recorded; what is damaged in the record is ignored", () => {
    using temp = new Temp();
    const path = recordPath(temp.top, "lab");
    expect(readMembers(path)).toEqual([]);
    const members = [{ mac: MAC, name: "web", host: 77 }];
    writeMembers(path, members);
    expect(readMembers(path)).toEqual(members);
    const bad = [
      { mac: MAC, name: "a\nb", host: 20 },
      { mac: "x", name: "b", host: 21 },
      { ...members[0], host: 3 },
    ];
    writeFileSync(path, JSON.stringify({ members: [...bad, ...members, null] }));
    expect(readMembers(path)).toEqual(members);
    writeFileSync(path, "{");
    expect(readMembers(path)).toEqual([]);
  });
});
