import { expect, test } from "bun:test";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { makeNetworkDirectory, networksDirectory } from "../../src/network/place.ts";
import { Temp } from "../fixtures/temp.ts";

test("a network's directory is one that only this user can enter; another is refused (74)", () => {
  using temp = new Temp();
  const place = { env: { XDG_RUNTIME_DIR: temp.top }, tmpdir: "/nowhere" };
  expect(makeNetworkDirectory(place, "lab")).toBe(join(temp.top, "vm/networks/lab"));
  mkdirSync(temp.path("vm/networks/open"));
  chmodSync(temp.path("vm/networks/open"), 0o755);
  expect(() => makeNetworkDirectory(place, "open")).toThrow("can be entered by other users");
});

test("a runtime directory that is relative or missing is not used", () => {
  for (const XDG_RUNTIME_DIR of ["relative/place", "/nowhere/at/all"])
    expect(networksDirectory({ env: { XDG_RUNTIME_DIR }, tmpdir: "/tmp" })).not.toContain(XDG_RUNTIME_DIR);
});
