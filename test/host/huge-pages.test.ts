import { expect, test } from "bun:test";
import { checkHugePages } from "../../src/host/doctor/qemu.ts";
import { Temp } from "../fixtures/temp.ts";

test.each([
  ["always within_size [advise] never deny force\n", true, "ok"],
  ["[always] within_size advise never deny force\n", true, "ok"],
  ["always within_size advise [never] deny force\n", true, "limited"],
  ["always within_size advise [never] deny force\n", false, "ok"],
  ["", true, "limited"],
] as const)("%j with SHARED_RAM %p: %s", (text, shared, state) => {
  using temp = new Temp();
  const check = checkHugePages({ SHARED_RAM: shared }, temp.write("shmem_enabled", text));
  expect(check.state).toBe(state);
  if (state === "limited") expect(check.detail).toContain("echo advise >");
});

test("a kernel without them is limited", () => {
  expect(checkHugePages({ SHARED_RAM: true }, "/nowhere/shmem_enabled").state).toBe("limited");
});
