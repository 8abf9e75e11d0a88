/** What a running qemu uses, by /proc (proc(5)) and by its monitor. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../qmp/client.ts";
import { WORK } from "../../store/layout.ts";

/** Counters of one moment. */
export interface Sample {
  atMs: number;
  cpuSeconds: number;
  rssBytes: number;
  /** Shared pages divided among those that share them; null: not permitted. */
  pssBytes: number | null;
  /** Null: the monitor is in use, or does not answer. */
  disk: { readBytes: number; writtenBytes: number; reads: number; writes: number } | null;
  /** As the guest sees it; null: no tap device, as with user networking. */
  network: { receivedBytes: number; sentBytes: number } | null;
}

/** A monitor that another command uses does not hold up the others for longer. */
const MONITOR_MS = 500;
/** USER_HZ of Linux, on all architectures that this program runs on. */
const TICKS_PER_SECOND = 100;

/** @returns undefined if the process has exited */
export async function takeSample(workdir: string, pid: number): Promise<Sample | undefined> {
  const disk = await readDiskCounters(join(workdir, WORK.qmp));
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may contain anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return {
      atMs: performance.now(),
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
      rssBytes: readKiB(`/proc/${pid}/status`, "VmRSS") ?? 0,
      pssBytes: readKiB(`/proc/${pid}/smaps_rollup`, "Pss") ?? null,
      disk,
      network: readNetworkCounters(pid),
    };
  } catch {
    return undefined;
  }
}

function readKiB(path: string, name: string): number | undefined {
  try {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync(path, "utf8"))?.[1];
    return found === undefined ? undefined : Number(found) * 1024;
  } catch {
    return undefined;
  }
}

async function readDiskCounters(socket: string): Promise<Sample["disk"]> {
  try {
    const qmp = await QmpClient.connect(socket, MONITOR_MS, MONITOR_MS);
    try {
      const total = { readBytes: 0, writtenBytes: 0, reads: 0, writes: 0 };
      for (const { stats } of await qmp.execute("query-blockstats")) {
        total.readBytes += stats.rd_bytes;
        total.writtenBytes += stats.wr_bytes;
        total.reads += stats.rd_operations;
        total.writes += stats.wr_operations;
      }
      return total;
    } finally {
      qmp.close();
    }
  } catch {
    return null;
  }
}

/** Of the tap devices that qemu has open in this network namespace. */
function readNetworkCounters(pid: number): Sample["network"] {
  let total = null as Sample["network"];
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      if (!readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith("/net/tun")) continue;
      const name = /^iff:\t([^/\s]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1];
      if (name === undefined) continue;
      const count = (counter: string): number =>
        Number(readFileSync(`/sys/class/net/${name}/statistics/${counter}`, "utf8"));
      // What the host receives from the tap the guest has sent.
      const [receivedBytes, sentBytes] = [count("tx_bytes"), count("rx_bytes")];
      total = {
        receivedBytes: (total?.receivedBytes ?? 0) + receivedBytes,
        sentBytes: (total?.sentBytes ?? 0) + sentBytes,
      };
    }
  } catch {
    // It has exited, or a tap is in another namespace.
  }
  return total;
}
