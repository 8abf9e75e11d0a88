/** Limits that a unit keeps from one run to the next. */
import { afterAll, expect, test } from "bun:test";
import { chmodSync, readFileSync } from "node:fs";
import { clearUnitLimits, confineQemu } from "../../src/vm/confine.ts";
import type { KernelPlaces } from "../../src/process/cgroup.ts";
import { Temp } from "../fixtures/temp.ts";

const temp = new Temp();
const { PATH } = process.env;
afterAll(() => {
  process.env.PATH = PATH;
  temp[Symbol.dispose]();
});

const NONE = String(2n ** 64n - 1n);
const SETTINGS = { CPU_QUOTA: 50, MEMORY_MAX: undefined, IO_WEIGHT: undefined, SLICE: "" };

/** A process of a unit, and a busctl that records its words. */
function inUnit(name: string, unit: string) {
  temp.write(`${name}/proc/self/cgroup`, `0::/vms.slice/${unit}\n`);
  temp.write(`${name}/proc/7/cgroup`, `0::/vms.slice/${unit}\n`);
  temp.write(`${name}/bin/busctl`, `#!/bin/sh\necho "$*" >>'${temp.path(name)}/calls'\n`);
  chmodSync(temp.path(`${name}/bin/busctl`), 0o755);
  process.env.PATH = `${temp.path(name)}/bin:${PATH}`;
  const places: KernelPlaces = { proc: temp.path(`${name}/proc`), groups: undefined };
  return {
    places,
    env: { XDG_RUNTIME_DIR: temp.path(name) },
    called: () => readFileSync(temp.path(`${name}/calls`), "utf8"),
  };
}

test("what an earlier run has set is removed, nothing else", async () => {
  const { places, env, called } = inUnit("clear", "vm@web.service");
  await clearUnitLimits("vm", { bus: "--user" }, places, env);
  expect(called).toThrow();
  temp.write("clear/systemd/user.control/vm@web.service.d/50-CPUQuota.conf", "");
  temp.write("clear/systemd/user.control/vm@web.service.d/50-MemoryMax.conf", "");
  await clearUnitLimits("other", { bus: "--user" }, places, env);
  expect(called).toThrow();
  await clearUnitLimits("vm", { bus: "--user" }, places, env);
  expect(called()).toEndWith(
    `SetUnitProperties sba(sv) vm@web.service true 2 CPUQuotaPerSecUSec t ${NONE} MemoryMax t ${NONE}\n`,
  );
});

test.each([
  [
    "vmx",
    "vmx@web.service",
    /SetUnitProperties sba\(sv\) vmx@web\.service true 1 CPUQuotaPerSecUSec t 500000$/m,
  ],
  ["vm", "sshd@1.service", /StartTransientUnit .* vm-web-7\.scope/],
])("the unit of %s is its own, %s", async (prog, unit, call) => {
  const { places, called } = inUnit(unit, unit);
  const confined = confineQemu(7, { name: "web", prog }, SETTINGS, { bus: "--user" }, places);
  if (prog === "vm") temp.write(`${unit}/proc/7/cgroup`, "0::/vm-web-7.scope\n");
  await confined;
  expect(called()).toMatch(call);
});
