/** Parsing of replies: block nodes, displays. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  addingBitmap,
  getDrive,
  listBlockNodes,
  removeNode,
  removingBitmap,
  settingDrive,
} from "../../src/qmp/block.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { QmpError } from "../../src/qmp/errors.ts";
import { dumpScreen, queryDisplay } from "../../src/qmp/screen.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeQmp, type Request } from "./fake-server.ts";

let temp: Temp;
beforeEach(() => void (temp = new Temp()));
afterEach(() => temp[Symbol.dispose]());

/** A value, or an error's class and description. */
type Answers = Record<string, unknown> & { errors?: Record<string, { class: string; desc: string }> };

/** @returns the result of `use`, and the requests that qemu got */
async function ask<T>(
  { errors = {}, ...answers }: Answers,
  use: (qmp: QmpClient) => Promise<T>,
): Promise<[T, Omit<Request, "id">[]]> {
  using server = new FakeQmp(temp.path("qmp.sock"), ({ execute }) =>
    execute in errors ? { error: errors[execute] } : { return: answers[execute] ?? {} },
  );
  const qmp = await QmpClient.connect(temp.path("qmp.sock"));
  try {
    return [await use(qmp), server.requests.slice(1).map(({ id: _id, ...request }) => request)];
  } finally {
    qmp.close();
  }
}

describe("block nodes", () => {
  const node = {
    "node-name": "disk0",
    drv: "qcow2",
    file: "/w/disk-0.img",
    image: { "virtual-size": 1 << 20, filename: "/w/disk-0.img" },
  };
  const plain = { node: "disk0", driver: "qcow2", file: "/w/disk-0.img", virtualBytes: 1 << 20 };

  test.each([
    ["an intact one", {}, { corrupt: false, bitmaps: [] }],
    [
      "a corrupt one",
      { image: { ...node.image, "format-specific": { type: "qcow2", data: { corrupt: true } } } },
      { corrupt: true, bitmaps: [] },
    ],
    [
      "bitmaps: recording, not recording, inconsistent, nameless",
      {
        "dirty-bitmaps": [
          { name: "a", count: 1, recording: true },
          { name: "b", count: 2, recording: false },
          { name: "c", count: 3, recording: true, inconsistent: true },
          { count: 4, recording: true },
        ],
      },
      {
        corrupt: false,
        bitmaps: [
          { name: "a", count: 1, sound: true },
          { name: "b", count: 2, sound: false },
          { name: "c", count: 3, sound: false },
        ],
      },
    ],
  ])("%s", async (_what, more, found) => {
    const [nodes, requests] = await ask(
      { "query-named-block-nodes": [{ ...node, ...more }] },
      listBlockNodes,
    );
    expect(nodes).toEqual([{ ...plain, ...found }]);
    expect(requests).toEqual([{ execute: "query-named-block-nodes", arguments: { flat: true } }]);
  });

  test("replaces a device's drive; removes a node; adds and removes bitmaps", async () => {
    const [drive, requests] = await ask({ "qom-get": "disk0" }, async (qmp) => {
      await qmp.execute("qom-set", settingDrive("disk0-dev", "filter"));
      await removeNode(qmp, "old");
      await qmp.execute("transaction", {
        actions: [addingBitmap("disk0", "b"), removingBitmap("disk0", "a")],
      });
      return getDrive(qmp, "disk0-dev");
    });
    expect(drive).toBe("disk0");
    const property = { path: "/machine/peripheral/disk0-dev", property: "drive" };
    expect(requests).toEqual([
      { execute: "qom-set", arguments: { ...property, value: "filter" } },
      { execute: "blockdev-del", arguments: { "node-name": "old" } },
      {
        execute: "transaction",
        arguments: {
          actions: [
            { type: "block-dirty-bitmap-add", data: { node: "disk0", name: "b", persistent: true } },
            { type: "block-dirty-bitmap-remove", data: { node: "disk0", name: "a" } },
          ],
        },
      },
      { execute: "qom-get", arguments: property },
    ]);
  });
});

describe("the display", () => {
  const none = { "query-spice": { enabled: false }, "query-vnc": { enabled: false } };
  const unknown = { class: "CommandNotFound", desc: "The command has not been found" };

  test.each<[string, Answers, object | undefined]>([
    ["nowhere", none, undefined],
    [
      "SPICE on a port",
      { ...none, "query-spice": { enabled: true, host: "127.0.0.1", port: 5900, auth: "spice" } },
      { kind: "spice", at: { host: "127.0.0.1", port: 5900 }, asksPassword: true, encrypted: false },
    ],
    [
      "SPICE with TLS only",
      { ...none, "query-spice": { enabled: true, host: "::1", "tls-port": 5901, auth: "none" } },
      { kind: "spice", at: { host: "::1", port: 5901 }, asksPassword: false, encrypted: true },
    ],
    [
      "SPICE on a socket",
      { ...none, "query-spice": { enabled: true, host: "/w/spice.sock", auth: "none" } },
      { kind: "spice", at: { socket: "/w/spice.sock" }, asksPassword: false, encrypted: false },
    ],
    [
      "VNC on a port",
      {
        ...none,
        "query-vnc": { enabled: true, host: "127.0.0.1", service: "5902", family: "ipv4", auth: "vnc" },
      },
      { kind: "vnc", at: { host: "127.0.0.1", port: 5902 }, asksPassword: true, encrypted: false },
    ],
    [
      "VNC on a socket",
      { ...none, "query-vnc": { enabled: true, service: "/w/vnc.sock", family: "unix", auth: "none" } },
      { kind: "vnc", at: { socket: "/w/vnc.sock" }, asksPassword: false, encrypted: false },
    ],
    [
      "VNC of a qemu without SPICE",
      {
        "query-vnc": { enabled: true, service: "/w/vnc.sock", family: "unix", auth: "none" },
        errors: { "query-spice": unknown },
      },
      { kind: "vnc", at: { socket: "/w/vnc.sock" }, asksPassword: false, encrypted: false },
    ],
    ["a qemu with neither", { errors: { "query-spice": unknown, "query-vnc": unknown } }, undefined],
  ])("%s", async (_how, answers, shown) => {
    const [found] = await ask(answers, queryDisplay);
    expect(found).toEqual(shown as any);
  });

  test("an error of qemu is passed on", async () => {
    const errors = { "query-spice": { class: "GenericError", desc: "no" } };
    expect(await failureOf(() => ask({ errors }, queryDisplay))).toBeInstanceOf(QmpError);
  });
});

const dump = (qmp: QmpClient): Promise<boolean> => dumpScreen(qmp, "/w/screen.ppm");

describe("a screenshot", () => {
  test("is written if there is a console", async () => {
    expect(await ask({}, dump)).toEqual([
      true,
      [{ execute: "screendump", arguments: { filename: "/w/screen.ppm" } }],
    ]);
  });

  test.each([
    ["There is no console to take a screendump from", false],
    ["No such console", undefined],
    ["failed to open file '/w/screen.ppm': No space left on device", undefined],
  ])("unless qemu says: %s", async (desc, result) => {
    const errors = { screendump: { class: "GenericError", desc } };
    if (result !== undefined) expect((await ask({ errors }, dump))[0]).toBe(result);
    else expect(await failureOf(() => ask({ errors }, dump))).toBeInstanceOf(QmpError);
  });
});
