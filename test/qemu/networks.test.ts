import { describe, expect, test } from "bun:test";
import { isBridgeAllowed } from "../../src/qemu/bridge.ts";
import { passtForwards } from "../../src/qemu/passt.ts";

describe("forwards of passt", () => {
  test.each([
    ["hostfwd=tcp::5555-:22", ["--tcp-ports", "5555:22"]],
    ["hostfwd=udp:127.0.0.1:53-:5353", ["--udp-ports", "127.0.0.1/53:5353"]],
  ])("%s: %j", (option, words) => expect(passtForwards([option])).toEqual(words));

  test.each(["hostfwd=tcp::1-10.0.2.15:2", "guestfwd=tcp:10.0.2.100:1-cmd:x", "restrict=on"])(
    "%s is refused (64)",
    (option) => expect(() => passtForwards([option])).toThrow(`passt cannot do ${option}`),
  );
});

test.each([
  ["allow br0", true],
  ["allow all", true],
  ["allow all\ndeny br0", false],
  ["deny all\n  allow   br0\n", true],
  ["# allow br0", false],
  ["allow br00", false],
  ["", false],
  ["include /etc/qemu/me.conf", undefined],
])("bridge.conf %j allows br0: %p", (list, allowed) => expect(isBridgeAllowed(list, "br0")).toBe(allowed!));
