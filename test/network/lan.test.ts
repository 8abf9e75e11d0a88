import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, mkdirSync, openSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatDnsmasqConfig, makeDirectories } from "../../src/network/dnsmasq.ts";
import { LAN_PROGRAMS, openLan, OUTSIDE_PROGRAMS } from "../../src/network/lan.ts";
import { flock, LOCK_EX } from "../../src/process/libc.ts";
import { failureOf } from "../fixtures/failure.ts";
import { testWith } from "../fixtures/needs.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeLan } from "./fake-lan.ts";

const MEMBERS = [
  { mac: "02:00:00:00:00:01", name: "web", host: 77 },
  { mac: "02:00:00:00:00:02", name: "db", host: 78 },
];

function requestFor(fake: FakeLan, outside: "on" | "off" = "off") {
  mkdirSync(fake.lab, { recursive: true, mode: 0o700 });
  return { name: "lab", directory: fake.lab, prefix: "10.7.8", outside, members: MEMBERS };
}

/** The limits of waiting are over at once. */
function hurry(): Disposable {
  let now = Date.now();
  return spyOn(Date, "now").mockImplementation(() => (now += 20_000));
}

describe("openLan", () => {
  test("starts a network, which gives its members leases and names, and ends with the last holder of its pipe", async () => {
    using fake = new FakeLan();
    const first = await openLan(requestFor(fake));
    expect(first.pid).toBe(Number(fake.read("ready")));
    expect(first.lifeline).toBe(join(fake.lab, "members"));
    expect(statSync(first.lifeline).isFIFO()).toBe(true);
    expect(fake.read("starts")).toMatch(/^--user .*--kill-child sh lan\.sh 10\.7\.8 off\n$/);
    expect(fake.read("lan.sh")).toContain("dnsmasq");
    expect(fake.read("leases/02-00-00-00-00-01")).toBe("02:00:00:00:00:01,10.7.8.77,web,infinite\n");
    expect(fake.read("hosts/02-00-00-00-00-02")).toBe("10.7.8.78 db\n");
    const second = await openLan(requestFor(fake));
    first[Symbol.dispose]();
    const third = await openLan(requestFor(fake));
    expect([second.pid, third.pid]).toEqual([first.pid, first.pid]);
    for (const lan of [second, third]) lan[Symbol.dispose]();
    await fake.ended();
    expect(() => process.kill(first.pid, 0)).toThrow("ESRCH");
  });

  test("starts it again after its end, without what the former one left", async () => {
    using fake = new FakeLan();
    (await openLan(requestFor(fake)))[Symbol.dispose]();
    await fake.ended();
    rmSync(join(fake.lab, "members"));
    writeFileSync(join(fake.lab, "members"), "no pipe");
    writeFileSync(join(fake.lab, "leases/02-00-00-00-00-03"), "former");
    const lan = await openLan(requestFor(fake, "on"));
    expect(fake.read("starts").match(/ (on|off)$/gm)).toEqual([" off", " on"]);
    expect(() => fake.read("leases/02-00-00-00-00-03")).toThrow("ENOENT");
    lan[Symbol.dispose]();
    await fake.ended();
  });

  test.each([
    ["on", "off", "outside=on", "use net=lab$"],
    ["off", "on", "outside=off", "use net=lab,outside=off$"],
  ] as const)(
    "one that runs with outside=%s is not joined with %s (75)",
    async (running, wanted, says, hint) => {
      using fake = new FakeLan();
      const lan = await openLan(requestFor(fake, running));
      const error = await failureOf(() => openLan(requestFor(fake, wanted)));
      expect(error.exitCode).toBe(75);
      expect(error.message).toContain(says);
      expect(error.hint).toMatch(new RegExp(hint));
      // The refused one does not hold the pipe.
      lan[Symbol.dispose]();
      await fake.ended();
    },
  );

  test.each(Object.keys({ ...LAN_PROGRAMS, ...OUTSIDE_PROGRAMS }))("needs %s (69)", async (program) => {
    using fake = new FakeLan();
    fake.onlyThese();
    rmSync(fake.path("bin", program));
    const error = await failureOf(() => openLan(requestFor(fake, "on")));
    expect(error.exitCode).toBe(69);
    expect(error.message).toBe(`the network lab needs ${program}, which is not installed`);
    expect(error.hint?.includes("net=lab,outside=off")).toBe(program in OUTSIDE_PROGRAMS);
  });

  test("one without the outside needs neither pasta nor nft", async () => {
    using fake = new FakeLan();
    for (const program of Object.keys(OUTSIDE_PROGRAMS)) rmSync(fake.path("bin", program));
    (await openLan(requestFor(fake)))[Symbol.dispose]();
    await fake.ended();
  });

  test("a start that fails says what the programs said (74), and holds nothing", async () => {
    using fake = new FakeLan();
    fake.program("unshare", "echo 'unshare: Operation not permitted' >&2; exit 1");
    const error = await failureOf(() => openLan(requestFor(fake)));
    expect(error.exitCode).toBe(74);
    expect(error.message).toBe("cannot start the network lab:\n  unshare: Operation not permitted");
    expect(error.hint).toContain("doctor");
    await fake.ended();
    fake.program("unshare", "exit 1");
    expect((await failureOf(() => openLan(requestFor(fake)))).message).toBe("cannot start the network lab");
  });

  test("a start that takes too long is killed (74)", async () => {
    using fake = new FakeLan();
    fake.program("unshare", "exec sleep 600");
    const request = requestFor(fake);
    using _hurry = hurry();
    expect((await failureOf(() => openLan(request))).exitCode).toBe(74);
    await fake.ended();
  });

  test("one that lives and does not answer is not joined (74)", async () => {
    using fake = new FakeLan();
    const request = requestFor(fake);
    const alive = openSync(join(fake.lab, "alive"), "w+");
    flock(alive, LOCK_EX);
    using _hurry = hurry();
    const error = await failureOf(() => openLan(request));
    closeSync(alive);
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain("does not answer");
  });
});

describe("the configuration of dnsmasq", () => {
  const FILES = { leases: "leases", hosts: "hosts", pid: "dnsmasq.pid" };
  const format = (directory: string, outside: "on" | "off"): string[] =>
    formatDnsmasqConfig({ name: "lab", directory, prefix: "10.7.8", outside }, FILES).split("\n");

  test("has fixed leases and names; a router and further names only with the outside", () => {
    const off = format("/run/lab", "off");
    for (const line of [
      "dhcp-range=10.7.8.0,static,255.255.255.0",
      'dhcp-hostsdir="/run/lab/leases"',
      'hostsdir="/run/lab/hosts"',
      "domain=lab",
      "local=/lab/",
      "no-resolv",
      "dhcp-option=3",
    ])
      expect(off).toContain(line);
    const on = format("/run/lab", "on");
    expect(on).not.toContain("no-resolv");
    expect(on).not.toContain("dhcp-option=3");
    expect(on.join("\n")).toMatch(/^resolv-file=\/\S+resolv\.conf$/m);
  });

  testWith("dnsmasq").each(["plain", "with, a comma and a space", "с кириллицей"])(
    "is accepted by dnsmasq itself: %s",
    (name) => {
      using temp = new Temp();
      const directory = temp.directory(name);
      makeDirectories(directory, FILES);
      for (const outside of ["on", "off"] as const) {
        const config = temp.write("dnsmasq.conf", format(directory, outside).join("\n"));
        const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
        const run = Bun.spawnSync(["dnsmasq", "--test", `--conf-file=${config}`], { env });
        expect(run.stderr.toString()).toContain("syntax check OK");
        expect(run.exitCode).toBe(0);
      }
    },
  );
});
