/** Programs of a running network that have exited are started again for the next member. */
import { expect } from "bun:test";
import { join } from "node:path";
import { openLan, type Lan } from "../../src/network/lan.ts";
import { findExitedOfLan } from "../../src/network/exited.ts";
import { findProgram } from "../../src/process/exec.ts";
import { findByArgument } from "../../src/process/holders.ts";
import { makeNetworkDirectory } from "../../src/network/place.ts";
import { hasExited } from "../fixtures/has-exited.ts";
import { testIf } from "../fixtures/needs.ts";
import { Temp } from "../fixtures/temp.ts";
import { until } from "../fixtures/sandbox.ts";

const NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"];
const canNet =
  ["dnsmasq", "ip", "nsenter", "unshare", "nft", "pasta"].every((name) => findProgram(name) !== undefined) &&
  Bun.spawnSync(NAMESPACES).exitCode === 0;

testIf(canNet, "user namespaces, iproute2, nftables, dnsmasq and passt")(
  "pasta and dnsmasq that were killed are named, and run again once a member joins",
  async () => {
    using temp = new Temp();
    const place = { env: { XDG_RUNTIME_DIR: temp.directory("run") }, tmpdir: temp.top };
    const directory = makeNetworkDirectory(place, "lab");
    const exited = (): string[] => findExitedOfLan(place, "lab");
    expect(exited()).toEqual(["network"]);
    const open = (): Promise<Lan> =>
      openLan({ name: "lab", directory, prefix: "10.7.8", outside: "on", members: [] });
    using first = await open();
    expect(exited()).toEqual([]);
    const routes = (): string =>
      Bun.spawnSync([
        ..."nsenter --user --net --target".split(" "),
        String(first.pid),
        ..."-- ip route".split(" "),
      ]).stdout.toString();
    expect(routes()).toContain("default");
    const dnsmasq = `--conf-file=${join(directory, "dnsmasq.conf")}`;
    for (const [name, argument] of [
      ["pasta", join(directory, "namespace")],
      ["dnsmasq", dnsmasq],
    ] as const) {
      const pids = findByArgument(name.slice(0, 3), argument).map(({ pid }) => pid);
      for (const pid of pids) process.kill(pid, "SIGKILL");
      await until(`${name} has exited`, () => pids.every(hasExited) && exited().includes(name));
    }
    expect(exited()).toEqual(["dnsmasq", "pasta"]);
    expect(routes()).not.toContain("default");
    using _second = await open();
    expect(exited()).toEqual([]);
    expect(routes()).toContain("default");
  },
);
