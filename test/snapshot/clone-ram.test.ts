import { expect, test } from "bun:test";
import { renewRun } from "../../src/snapshot/clone/ram.ts";
import type { RunRecord } from "../../src/store/mark-types.ts";

const run = (settings: object, typed: object = {}): RunRecord => ({
  started: "2026-11-30T00:00:00.000Z",
  detached: true,
  forwards: [],
  settings,
  typed: { settings: {}, additions: {}, ssh: false, ...typed },
});

test("the machine of a clone has its own UUID, MAC addresses and ports, and the devices of the saved one", () => {
  const saved = { UUID: "u", MAC: "02:00:00:00:00:01", PORT: "5901", CORES: "2", LAYOUT: "1" };
  expect(renewRun(run(saved)).settings).toEqual({ CORES: "2", LAYOUT: "1" });
  expect(renewRun(run({ PORT: "" })).settings).toEqual({ PORT: "" });
});

test("cards on networks with other machines are disconnected, and no card keeps its MAC address", () => {
  const mac = "mac=02:00:00:00:00:01";
  const NETWORKS = [`user,${mac}`, `bridge=br0,${mac}`, "net=lab,outside=off", "tap=tap0,link=down"];
  expect(renewRun(run({ NETWORKS })).settings).toEqual({
    NETWORKS: ["user", "bridge=br0,link=down", "net=lab,outside=off,link=down", "tap=tap0,link=down"],
  });
});

test("of the options of the saved run, forwards and MAC addresses are left out", () => {
  const typed = {
    settings: { PORT: "5911", CORES: "3" },
    additions: {
      FORWARDS: ["hostfwd=tcp::5555-:22"],
      NETWORKS: ["bridge=br0,mac=02:00:00:00:00:01"],
      SHARES: ["s"],
    },
    ssh: true,
  };
  expect(renewRun(run({}, typed)).typed).toEqual({
    settings: { CORES: "3" },
    additions: { NETWORKS: ["bridge=br0"], SHARES: ["s"] },
    ssh: true,
  });
});
