import { describe, expect, test } from "bun:test";
import type { DisplayAddress } from "../../src/machine/types.ts";
import type { Context } from "../../src/vm/context.ts";
import { defaultName } from "../../src/guest/screenshot.ts";
import { describeViewing } from "../../src/vm/viewer.ts";

const NOW = new Date(2026, 10, 5, 9, 3, 7);

test.each([
  ["WS10", "WS10-20261105-090307.png"],
  ["", "vm-20261105-090307.png"],
  ["a/b\nc", "a_b_c-20261105-090307.png"],
  ["../x", "_._x-20261105-090307.png"],
  ["-rf", "_rf-20261105-090307.png"],
  ["Ёлка №1", "Ёлка №1-20261105-090307.png"],
])("names a picture of %j %s", (guest, name) => {
  expect(defaultName(guest, NOW)).toBe(name);
});

describe("viewing remotely", () => {
  const context = { env: { USER: "me" } } as unknown as Context;
  test.each<[string, "spice" | "vnc", DisplayAddress, string]>([
    ["localhost", "spice", { host: "localhost", port: 5901 }, "ssh -L 5901:localhost:5901 me@far"],
    [
      "another loopback address",
      "vnc",
      { host: "127.0.0.2", port: 5900 },
      "ssh -L 127.0.0.2:5900:127.0.0.2:5900 me@far",
    ],
    ["all addresses", "spice", { host: "0.0.0.0", port: 5900 }, "ssh -L 5900:localhost:5900 me@far"],
    ["IPv6", "spice", { host: "::1", port: 5900 }, "ssh -L '[::1]:5900:[::1]:5900' me@far"],
    ["a socket", "spice", { socket: "/w/spice.sock" }, "ssh -L 5900:/w/spice.sock me@far"],
    ["a socket of VNC", "vnc", { socket: "/w/vnc.sock" }, "ssh -L 5900:/w/vnc.sock me@far"],
    [
      "an address that other hosts reach",
      "spice",
      { host: "192.0.2.1", port: 5900 },
      "scp -q me@far:/w/spice.vv . && remote-viewer spice.vv",
    ],
  ])("at %s", (_title, kind, at, line) => {
    const display = { kind, at, passwordFile: undefined, tls: undefined };
    expect(describeViewing(context, "far", `/w/${kind}.vv`, display)).toContain(`remotely: ${line}`);
  });
});
