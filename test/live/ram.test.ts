/** Which running machine's state can be saved, and what prevents it; that it is right is for test/e2e/ram.test.ts. */
import { expect, spyOn, test } from "bun:test";
import { mkdirSync, readFileSync, statSync, writeSync } from "node:fs";
import { machineDirectory, openMachine, prepareState } from "../../src/live/ram.ts";
import * as descriptors from "../../src/qmp/send-descriptor.ts";
import type { QmpClient } from "../../src/qmp/client.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

type Answers = Record<string, (args: any) => unknown>;

/** A monitor of a running guest whose RAM is `ram`, with one disk in `workdir`. */
function monitor(ram: string, workdir: string, answers: Answers): QmpClient {
  let onEvent: ((event: unknown) => void) | undefined;
  const table: Answers = {
    "query-status": () => ({ status: "running", running: true }),
    "qom-get": ({ property }) => (property === "share" ? true : ram),
    "query-migrate": () => ({}),
    "qom-list": () => [{ name: "disk0-device", type: "child<ide-hd>" }],
    "query-block": () => [],
    "query-named-block-nodes": () => [
      { "node-name": "disk0", drv: "qcow2", file: `${workdir}/disk-0.img`, image: { "virtual-size": 1 } },
      { "node-name": "disk0-file", drv: "file", file: `${workdir}/disk-0.img`, image: { "virtual-size": 1 } },
    ],
    migrate: () => onEvent?.({ event: "MIGRATION", data: { status: "completed" } }) ?? {},
    ...answers,
  };
  return {
    version: "7.2.22",
    closed: new Promise(() => {}),
    onEvent: (listener: typeof onEvent) => (onEvent = listener),
    execute: async (command: string, args: unknown) => table[command]?.(args) ?? {},
  } as unknown as QmpClient;
}

function prepared(answers: Answers = {}) {
  const temp = new Temp();
  const staged = temp.path("staged");
  mkdirSync(staged);
  const ram = temp.write("ram", "what the guest has in its memory");
  return {
    temp,
    staged,
    open: () => openMachine(monitor(ram, temp.top, answers), process.pid, temp.top, staged),
  };
}

test("the file for the devices is sent to qemu; then devices and RAM are saved", async () => {
  const { temp, staged, open } = prepared();
  using _temp = temp;
  using _sent = spyOn(descriptors, "sendNamedDescriptor").mockImplementation(async (_path, _name, fd) => {
    writeSync(fd, "devices");
  });
  await prepareState("monitor", staged);
  const directory = machineDirectory(staged);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const machine = await open();
  expect(machine).toMatchObject({ qemu: "7.2.22", accel: "tcg", cd: undefined });
  await machine.save();
  expect(readFileSync(`${directory}/devices`, "utf8")).toBe("devices");
  expect(readFileSync(`${directory}/ram`, "utf8")).toBe("what the guest has in its memory");
});

test.each<[title: string, answers: Answers, message: RegExp, hint: RegExp]>([
  ["a paused guest", { "query-status": () => ({ status: "paused", running: false }) }, /paused/, /backup/],
  [
    "RAM of qemu's own",
    { "qom-get": () => Promise.reject(new Error("not found")) },
    /not shared memory/,
    /set SHARED_RAM=on/,
  ],
  [
    "a mounted share",
    {
      "query-migrate": () => ({
        "blocked-reasons": ["Migration is disabled when VirtFS export path is mounted"],
      }),
    },
    /VirtFS/,
    /umount -a -t 9p/,
  ],
  ["another obstacle", { "query-migrate": () => ({ "blocked-reasons": ["no"] }) }, /: no$/, /backup/],
  [
    "a foreign disk",
    {
      "query-named-block-nodes": () => [
        { "node-name": "disk0", drv: "raw", file: "/srv/other.img", image: { "virtual-size": 1 } },
        { "node-name": "disk0-file", drv: "file", file: "/srv/other.img", image: { "virtual-size": 1 } },
      ],
    },
    /not in the snapshot: \/srv\/other\.img/,
    /disk -h/,
  ],
])("%s is refused (75)", async (_title, answers, message, hint) => {
  const { temp, open } = prepared(answers);
  using _temp = temp;
  const error = await failureOf(open);
  expect(error).toMatchObject({ exitCode: 75, message: expect.stringMatching(message) });
  expect(error.hint).toMatch(hint);
});

test("a device that cannot be saved is named in qemu's words (75), a full filesystem is not (73)", async () => {
  for (const [answer, code] of [
    [() => Promise.reject(new Error("State blocked by device nvme")), 75],
    [() => Promise.reject(Object.assign(new Error("no space"), { errno: -28, code: "ENOSPC" })), 73],
  ] as const) {
    const { temp, staged, open } = prepared({ migrate: answer });
    using _temp = temp;
    mkdirSync(machineDirectory(staged));
    const machine = await open();
    expect(await failureOf(() => machine.save())).toMatchObject({ exitCode: code });
  }
});
