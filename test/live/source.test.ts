import { describe, expect, test } from "bun:test";
import type { DiskSource } from "../../src/live/disk-source.ts";
import { openLive } from "../../src/live/source.ts";
import type { Workdir } from "../../src/store/workdir.ts";
import { WORK } from "../../src/store/layout.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeQmp } from "../qmp/fake-server.ts";

test("a running qemu 7.0 gets no command: 69 with a hint", async () => {
  using temp = new Temp();
  const version = { qemu: { major: 7, minor: 0, micro: 0 } };
  using server = new FakeQmp(temp.path(WORK.backup), undefined, { QMP: { version, capabilities: [] } });
  const error = await failureOf(() => openLive({ dir: temp.top } as Workdir, [], temp.path("staged")));
  expect(error.exitCode).toBe(69);
  expect(error.message).toContain("snapshots of a running VM need qemu 7.1 or later, and this is 7.0.0");
  expect(error.hint).toContain("stop && ");
  expect(server.requests.map(({ execute }) => execute)).toEqual(["qmp_capabilities"]);
});

/** qemu's nodes for `disk-0.img`, named as in qemu/devices/disk.ts. */
const nodesOf = (path: string, corrupt = false): object[] => [
  {
    "node-name": "disk0",
    drv: "qcow2",
    file: path,
    image: { "virtual-size": 1 << 20, "format-specific": { data: { corrupt } } },
  },
  { "node-name": "disk0-file", drv: "file", file: path, image: { "virtual-size": 4096 } },
];

async function open<T>(
  nodes: (path: string) => object[],
  use: (opening: Promise<DiskSource>) => Promise<T>,
): Promise<T> {
  using temp = new Temp();
  const path = temp.write("disk-0.img", "");
  const version = { qemu: { major: 7, minor: 2, micro: 0 } };
  const answers: Record<string, unknown> = {
    "query-jobs": [],
    "query-chardev": [],
    "query-named-block-nodes": nodes(path),
  };
  using _server = new FakeQmp(temp.path(WORK.backup), ({ execute }) => ({ return: answers[execute] ?? {} }), {
    QMP: { version, capabilities: [] },
  });
  const source = { name: "disk-0.img", path, disk: true, base: undefined };
  return await use(openLive({ dir: temp.top } as Workdir, [source], temp.path("staged")));
}

describe("the disks of a running VM", () => {
  test("are found by the files that qemu has open", async () => {
    await open(nodesOf, async (opening) => {
      const { disks, close } = await opening;
      expect(disks).toMatchObject([
        { name: "disk-0.img", node: "disk0", virtualBytes: 1 << 20, bitmaps: [] },
      ]);
      await close();
      await close();
    });
  });

  test.each<[string, (path: string) => object[], number, string]>([
    ["that qemu has marked corrupt", (path) => nodesOf(path, true), 74, "marked it corrupt"],
    ["that qemu does not have open", () => nodesOf("/elsewhere"), 75, "no block node"],
    ["that qemu has open with another format", (path) => nodesOf(path).slice(1), 75, "no block node"],
  ])("%s: an error", async (_which, nodes, code, words) => {
    await open(nodes, async (opening) => {
      const error = await failureOf(() => opening);
      expect(error.exitCode).toBe(code);
      expect(error.message).toContain(words);
    });
  });
});

test("a running VM without the monitor for backups: 75 with a hint", async () => {
  using temp = new Temp();
  const error = await failureOf(() => openLive({ dir: temp.top } as Workdir, [], temp.path("staged")));
  expect(error.exitCode).toBe(75);
  expect(error.hint).toContain("stop");
});
