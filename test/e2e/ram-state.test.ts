/** The state of a machine in a directory, with real qemu, without the program around it. */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allocatedBytes } from "../../src/store/files.ts";
import { createMemoryFile } from "../../src/process/memory-file.ts";
import { buildRamArgs, ramOption } from "../../src/qemu/devices/ram.ts";
import {
  findRam,
  INCOMING_ARGS,
  loadDevices,
  openState,
  saveDevices,
  saveRam,
  sendDevicesFile,
} from "../../src/qemu/ram-state.ts";
import { startQemu, type QemuSession } from "../../src/qemu/session.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { buildRamGuest, readAnswers, readRecord, type RamRecord } from "../guests/ram.ts";
import { until } from "./harness.ts";
import { suite } from "./tools.ts";

const MEMORY_MIB = 64;

/** A machine with the disk `disk.img` of a directory, which is its working directory, too. */
class Lab implements AsyncDisposable {
  readonly top = mkdtempSync(join(tmpdir(), "vm-test-"));
  #number = 0;
  #running: QemuSession[] = [];

  get disk(): string {
    return join(this.top, "disk.img");
  }

  async start(ram: number, shared: boolean, more: readonly string[] = [], devices?: number) {
    const directory = join(this.top, `run${this.#number++}`);
    mkdirSync(directory);
    // Descriptors from 3 on.
    const file = { path: "/proc/self/fd/3", shared };
    const machine = await startQemu({
      jail: undefined,
      argv: [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        `pc${ramOption({ ram: file })}`,
        "-m",
        `${MEMORY_MIB}M`,
        ...buildRamArgs({ ram: file, memoryMiB: MEMORY_MIB }),
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-device",
        "VGA",
        "-drive",
        `file=${this.disk},format=raw,if=ide,snapshot=${shared ? "off" : "on"}`,
        ...["monitor", "save"].flatMap((name) => [
          "-qmp",
          `unix:${join(directory, `${name}.sock`)},server=on,wait=off`,
        ]),
        "-chardev",
        `socket,id=c,path=${join(directory, "console.sock")},server=on,wait=off,logfile=${join(directory, "console.log")}`,
        "-serial",
        "chardev:c",
        ...more,
      ],
      directory,
      monitor: join(directory, "monitor.sock"),
      logPath: join(directory, "qemu.log"),
      lastFds: [ram, ...(devices === undefined ? [] : [devices])],
    });
    this.#running.push(machine);
    const ask = async (): Promise<RamRecord> => {
      const log = () => readFileSync(join(directory, "console.log"), "latin1");
      const before = readAnswers(log()).length;
      const socket = await Bun.connect({ unix: join(directory, "console.sock"), socket: { data: () => {} } });
      socket.write("?");
      await until("the guest's answer", () => readAnswers(log()).length > before);
      socket.end();
      return readAnswers(log()).at(-1)!;
    };
    return { machine, ask, monitor: join(directory, "save.sock") };
  }

  async resume(state: string, shared: boolean) {
    using open = openState(state, shared ? undefined : join(state, "ram"));
    const running = await this.start(open.ram, shared, INCOMING_ARGS, open.devices);
    await loadDevices(running.machine.qmp, 4, running.machine.ended);
    return running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.#running) await machine.end();
    rmSync(this.top, { recursive: true });
  }
}

suite("the state of a machine", () => {
  test("a guest is resumed with its RAM, its devices and its disk, and clones leave the file alone", async () => {
    await using lab = new Lab();
    writeFileSync(lab.disk, await buildRamGuest());
    truncateSync(lab.disk, 1 << 20);
    const booted = await lab.start(createMemoryFile("guest-ram", MEMORY_MIB << 20), true);
    await until("the guest's first records", () => (readRecord(lab.disk)?.count ?? 0) > 2);
    const first = await booted.ask();

    const state = join(lab.top, "state");
    mkdirSync(state);
    const { machine, monitor } = booted;
    await machine.qmp.execute("stop");
    await sendDevicesFile(monitor, state);
    const qmp = await QmpClient.connect(monitor);
    await saveDevices(qmp);
    await saveRam((await findRam(qmp, machine.pid))!, state);
    const ram = statSync(join(state, "ram"));
    expect(ram.size).toBe(MEMORY_MIB << 20);
    expect(allocatedBytes(ram)).toBeLessThan(16 << 20);
    // As after a failure: the guest is resumed, and may be saved again.
    await qmp.execute("cont");
    qmp.close();
    await until("further records", () => readRecord(lab.disk)!.count > first.count + 2);
    expect((await booted.ask()).number).toBe(first.number);
    rmSync(state, { recursive: true });
    mkdirSync(state);
    await machine.qmp.execute("stop");
    await sendDevicesFile(monitor, state);
    const again = await QmpClient.connect(monitor);
    await saveDevices(again);
    await saveRam((await findRam(again, machine.pid))!, state);
    again.close();
    await machine.end();
    const onDisk = readRecord(lab.disk)!;

    const sum = new Bun.CryptoHasher("sha256").update(readFileSync(join(state, "ram"))).digest("hex");
    const clones = [await lab.resume(state, false), await lab.resume(state, false)];
    for (const clone of clones) {
      await clone.machine.qmp.execute("cont");
      const answer = await clone.ask();
      expect(answer.number).toBe(first.number);
      expect(answer.count).toBeWithin(onDisk.count, onDisk.count + 100);
      await clone.machine.end();
    }
    expect(new Bun.CryptoHasher("sha256").update(readFileSync(join(state, "ram"))).digest("hex")).toBe(sum);

    const resumed = await lab.resume(state, true);
    expect(await findRam(resumed.machine.qmp, resumed.machine.pid)).toBe(`/proc/${resumed.machine.pid}/fd/3`);
    await resumed.machine.qmp.execute("cont");
    const answer = await resumed.ask();
    expect(answer.number).toBe(first.number);
    expect(answer.count).toBeWithin(onDisk.count, onDisk.count + 100);
    await until("further records", () => readRecord(lab.disk)!.count > answer.count);
    expect(readRecord(lab.disk)!.number).toBe(first.number);
  });
});
