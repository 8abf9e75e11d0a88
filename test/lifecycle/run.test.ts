import { expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import type { Context } from "../../src/vm/context.ts";
import { runVm } from "../../src/lifecycle/run.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Place } from "../store/working-files.ts";

function contextOf(place: Place): Context {
  return {
    prog: "vm-unit-test",
    version: "0",
    cwd: place.host,
    home: place.directory("home"),
    env: { PATH: process.env.PATH },
    hostArch: "x86_64",
    tmpdir: place.tmp,
    cacheDirectory: undefined,
    libexec: place.path("libexec"),
    options: { settings: {}, additions: {}, hostdir: undefined },
    ask: undefined,
    manual: async () => "",
    checkLine: async () => {},
    isCommand: () => false,
    meter: () => ({ update: () => {}, finish: () => {} }),
    print: () => {},
  };
}

test.each(["bakcup", "none.iso"])("a missing CD image, %j: nothing is restored or started", async (word) => {
  using place = new Place();
  Bun.spawnSync(["qemu-img", "create", "-q", "-f", "qcow2", place.path("disk"), "1M"]);
  place.write("host/backups/S0/disk-0.img.gz", gzipSync(readFileSync(place.path("disk"))));
  place.write("host/backups/S0/guest.env", 'GUESTNAME="x"\nIMAGES=("AHCI=qcow2=disk-0.img")\n');
  const before = place.names();
  const { exitCode } = await failureOf(() => runVm(contextOf(place), { iso: word }));
  expect(exitCode).toBe(66);
  expect(place.names()).toEqual(before);
});
