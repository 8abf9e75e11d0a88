import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { setInterface } from "../../src/process/libc.ts";
import { findBridgeProblems, findNoBridge, isBridgeAllowed } from "../../src/qemu/bridge.ts";
import { findDown } from "../../src/qemu/link.ts";
import { passtForwards } from "../../src/qemu/passt.ts";
import { findTapProblem, requireTap } from "../../src/qemu/tap.ts";
import { Temp } from "../fixtures/temp.ts";
import { testIf } from "../fixtures/needs.ts";

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

/** As /sys/class/net: a bridge that is down, one that is up, a card, and a name in use. */
function devices(): Temp {
  const temp = new Temp();
  temp.directory("br0/bridge");
  temp.write("br0/flags", "0x1002\n");
  temp.directory("br1/bridge");
  temp.write("br1/flags", "0x1003\n");
  temp.directory("ve0");
  temp.directory("tap0");
  return temp;
}

describe("devices of this host", () => {
  test("a bridge that is not there is created and set up; another device's name is not suggested", () => {
    using temp = devices();
    expect(findNoBridge("br1", temp.top)).toBeUndefined();
    expect(findNoBridge("lan", temp.top)?.fix).toBe(
      "create it: sudo ip link add lan type bridge && sudo ip link set lan up",
    );
    expect(findNoBridge("ve0", temp.top)).toEqual({
      text: "ve0 is not a bridge",
      fix: "create one, and use its name: sudo ip link add br2 type bridge && sudo ip link set br2 up",
    });
  });

  test("of another device it is not said what a bridge of that name lacks", () =>
    expect(findBridgeProblems("lo").map(({ text }) => text)).toEqual(["lo is not a bridge"]));

  test("a tap device likewise", () => {
    using temp = devices();
    expect(findTapProblem("tap5", temp.top)?.fix).toMatch(
      /^create it: sudo ip tuntap add dev tap5 mode tap user \S+ && sudo ip link set tap5 up$/,
    );
    const problem = findTapProblem("ve0", temp.top);
    expect(problem?.text).toBe("ve0 is not a tap device");
    expect(problem?.fix).toMatch(
      /^create one, and use its name: sudo ip tuntap add dev tap1 [^&]* && .* tap1 up$/,
    );
  });

  test("one that is down is found", () => {
    using temp = devices();
    expect(findDown("bridge", "br0", temp.top)).toEqual({
      text: "the bridge br0 is down",
      fix: "sudo ip link set br0 up",
    });
    expect(findDown("bridge", "br1", temp.top)).toBeUndefined();
    expect(findDown("bridge", "none", temp.top)).toBeUndefined();
  });

  testIf(canMakeTaps(), "/dev/net/tun")("a tap device in use is refused with its user (75)", () => {
    const fd = openSync("/dev/net/tun", "r+");
    try {
      const name = setInterface(fd, "vmt%d");
      expect(() => requireTap(name, "/nowhere")).toThrow(
        new RegExp(`${name} is in use by bun\\S* \\(pid ${process.pid}\\)`),
      );
      // That of this VM's own qemu may be of a card that is gone.
      expect(() => requireTap(name, process.cwd())).not.toThrow();
    } finally {
      closeSync(fd);
    }
  });
});

function canMakeTaps(): boolean {
  try {
    const fd = openSync("/dev/net/tun", "r+");
    try {
      setInterface(fd, "vmt%d");
    } finally {
      closeSync(fd);
    }
    return true;
  } catch {
    return false;
  }
}
