import { expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { userInfo } from "node:os";
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

test("what is above a network's directory belongs to this user, too, or it is refused (74)", () => {
  using temp = new Temp();
  const place = { env: {}, tmpdir: temp.path("tmp") };
  const { uid } = userInfo();
  mkdirSync(temp.path("tmp"));
  if (existsSync(`/run/user/${uid}`)) return;
  mkdirSync(temp.path(`tmp/vm-run-${uid}`));
  chmodSync(temp.path(`tmp/vm-run-${uid}`), 0o777);
  expect(() => makeNetworkDirectory(place, "lab")).toThrow("is writable by other users");
  expect(existsSync(temp.path(`tmp/vm-run-${uid}/networks`))).toBe(false);
  chmodSync(temp.path(`tmp/vm-run-${uid}`), 0o700);
  expect(makeNetworkDirectory(place, "lab")).toEndWith(`/tmp/vm-run-${uid}/networks/lab`);
  // Any user could rename what is in a directory without the sticky bit.
  chmodSync(temp.path("tmp"), 0o777);
  expect(() => makeNetworkDirectory(place, "lab")).toThrow("can be replaced by other users");
});
