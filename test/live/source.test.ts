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
    "qom-list": [{ name: "disk0-dev", type: "child<ide-hd>" }],
  };
  const opened = nodes(path);
  using _server = new FakeQmp(
    temp.path(WORK.backup),
    ({ execute, arguments: args = {} }) => {
      if (execute === "blockdev-add") opened.push({ ...nodesOf(path)[0], "node-name": args["node-name"] });
      return { return: execute === "query-named-block-nodes" ? opened : (answers[execute] ?? {}) };
    },
    { QMP: { version, capabilities: [] } },
  );
  const source = { name: "disk-0.img", path, disk: true, base: undefined };
  return await use(openLive({ dir: temp.top } as Workdir, [source], temp.path("staged")));
}

describe("the disks of a running VM", () => {
  test("are found by the files that qemu has open", async () => {
    await open(nodesOf, async (opening) => {
      const { disks, close } = await opening;
      expect(disks).toMatchObject([
        { name: "disk-0.img", node: "disk0", virtualBytes: 1 << 20, bitmaps: [], idle: false },
      ]);
      await close();
      await close();
    });
  });

  test("that are not attached to its machine are opened for the snapshot", async () => {
    await open(
      () => nodesOf("/elsewhere"),
      async (opening) => {
        const { disks, close } = await opening;
        expect(disks).toMatchObject([{ name: "disk-0.img", node: "vm-idle-disk-0.img", idle: true }]);
        await close();
      },
    );
  });

  test("that qemu has marked corrupt: an error", async () => {
    await open(
      (path) => nodesOf(path, true),
      async (opening) => {
        const error = await failureOf(() => opening);
        expect(error.exitCode).toBe(74);
        expect(error.message).toContain("marked it corrupt");
      },
    );
  });
});

test("a running VM without the monitor for backups: 75 with a hint", async () => {
  using temp = new Temp();
  const error = await failureOf(() => openLive({ dir: temp.top } as Workdir, [], temp.path("staged")));
  expect(error.exitCode).toBe(75);
  expect(error.hint).toContain("stop");
});
