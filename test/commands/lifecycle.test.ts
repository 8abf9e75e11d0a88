import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { Sandbox } from "../fixtures/sandbox.ts";

test("create, run, stop", async () => {
  using box = new Sandbox();
  const t0 = performance.now();
  const created = await box.vm("create", "G");
  expect(created).toMatchObject({ status: 0 });
  const t1 = performance.now();
  const qemu = await box.running();
  const t2 = performance.now();
  console.log(await box.vm("status"));
  const t3 = performance.now();
  console.log(await box.vm("stop"));
  const t4 = performance.now();
  console.log(await box.vm("backup"));
  console.log(await box.vm("backup", "--format=qcow2"));
  console.log(await box.vm("backup", "--format=qcow2"));
  const t5 = performance.now();
  await box.running();
  console.log(await box.vm("backup", "--format=qcow2"));
  console.log(await box.vm("backup", "--format=gz"));
  console.log(await box.vm("verify", "--all", "--deep"));
  console.log(await box.vm("snapshots", "list"));
  console.log(t1-t0,t2-t1,t3-t2,t4-t3,t5-t4, performance.now()-t5);
  expect(existsSync(box.path(".work"))).toBe(true);
});
