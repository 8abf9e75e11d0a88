import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { resumeIfSpace } from "../../src/vm/resume.ts";
import { resolveWork, type Workdir } from "../../src/store/workdir.ts";
import { FakeQmp } from "../qmp/fake-server.ts";
import { Place } from "../store/working-files.ts";

const event = (name: string, data = "{}"): string =>
  `{"event": "${name}", "timestamp": {"seconds": 1, "microseconds": 0}, "data": ${data}}\n`;
const NO_ROOM = event("BLOCK_IO_ERROR", '{"action": "stop", "nospace": true}') + event("STOP");
const BAD_DISK = event("BLOCK_IO_ERROR", '{"action": "stop", "nospace": false}') + event("STOP");

/** QMP commands of the next command that uses the guest, with space in WORKDIR. */
async function asked(events: string, status: string): Promise<string[]> {
  using place = new Place();
  const dir = place.make("x", "tmp");
  writeFileSync(join(dir, "events.out"), events);
  using qemu = new FakeQmp(join(dir, "qmp.sock"), ({ execute }) => ({
    return: execute === "query-status" ? { status, running: status === "running" } : {},
  }));
  await resumeIfSpace(resolveWork(place.host) as Workdir);
  return qemu.requests.map(({ execute }) => execute).filter((name) => name !== "qmp_capabilities");
}

test.each<[string, string, string, string[]]>([
  ["paused for lack of space", NO_ROOM, "io-error", ["query-status", "cont"]],
  ["paused for lack of space, then by a command", NO_ROOM, "paused", ["query-status"]],
  ["resumed meanwhile", NO_ROOM + event("RESUME"), "running", []],
  ["paused for an I/O error", BAD_DISK, "io-error", []],
  ["paused by a command", event("STOP"), "paused", []],
  ["that runs", "", "running", []],
])(
  "a guest %s, with space available: resumed only if qemu paused it for lack of space",
  async (_what, events, status, words) => {
    expect(await asked(events, status)).toEqual(words);
  },
);
