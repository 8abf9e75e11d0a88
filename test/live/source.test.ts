import { expect, test } from "bun:test";
import { openLive } from "../../src/live/source.ts";
import type { Workdir } from "../../src/store/workdir.ts";
import { WORK } from "../../src/store/layout.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeQmp } from "../qmp/fake-server.ts";

test("a running qemu 7.0 is asked for nothing: 69 with what to do", async () => {
  using temp = new Temp();
  const version = { qemu: { major: 7, minor: 0, micro: 0 } };
  using server = new FakeQmp(temp.path(WORK.backup), undefined, { QMP: { version, capabilities: [] } });
  const error = await failureOf(() => openLive({ dir: temp.top } as Workdir, [], temp.path("staged")));
  expect(error.exitCode).toBe(69);
  expect(error.message).toContain("live snapshots need qemu 7.1 or later, and it runs in 7.0.0");
  expect(error.hint).toContain("stop && ");
  expect(server.requests.map(({ execute }) => execute)).toEqual(["qmp_capabilities"]);
});
