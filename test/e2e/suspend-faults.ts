/** Suspends and resumes of one guest, undisturbed and killed at any time; after each the guest must be the same. */
import { seededRandom } from "./faults-lab.ts";
import { RamVm, type RamGuest } from "./ram-vm.ts";
import type { PointSink } from "./soak-lab.ts";

export interface SuspendSweep {
  seed: number;
  point: PointSink;
  parent?: string | undefined;
  guest?: RamGuest;
}

/** Commands end within this time on a quiet machine. */
const SPAN_MS = 700;

/** @returns what is wrong after a suspend that must have succeeded */
export async function judgeSuspended(vm: RamVm): Promise<string[]> {
  const { state } = JSON.parse((await vm.box.ok(["status", "--json"])).stdout) as { state: string };
  if (state !== "suspended") return [`the VM is ${state}, not suspended`];
  const record = await vm.record();
  const wrong: string[] = [];
  if (record.number !== vm.number) wrong.push("the disk has another guest's record");
  if (record.count < vm.count) wrong.push(`the disk's record went back from ${vm.count} to ${record.count}`);
  vm.count = Math.max(vm.count, record.count);
  return wrong;
}

/** Suspends and resumes `rounds` times, then kills `kills` of each command. */
export async function sweepSuspends(
  { seed, point, parent, guest }: SuspendSweep,
  { rounds, kills }: { rounds: number; kills: number },
): Promise<void> {
  const random = seededRandom(seed);
  using vm = await RamVm.make("", parent, guest);
  await vm.run();
  await vm.booted();
  for (let round = 0; round < rounds; round++) {
    await vm.box.ok(["suspend"]);
    const wrong = await judgeSuspended(vm);
    await vm.run();
    point(`ram:rounds:${round}`, [...wrong, ...(await vm.judge())]);
  }
  const kill = async (words: string[], signal: "SIGKILL" | "SIGINT"): Promise<void> => {
    const running = vm.box.start(words);
    await Bun.sleep(random() * SPAN_MS);
    running.kill(signal);
    await running.done;
  };
  for (let number = 0; number < kills; number++) {
    await kill(["suspend"], "SIGINT");
    const { state } = JSON.parse((await vm.box.ok(["status", "--json"])).stdout) as { state: string };
    if (state === "suspended") await vm.run();
    point(`ram:interrupt suspend:${number}`, state === "paused" ? ["the guest is paused"] : await vm.judge());
    await kill(["suspend"], "SIGKILL");
    await vm.box.ok(["suspend"]);
    const wrong = await judgeSuspended(vm);
    await vm.run();
    point(`ram:kill suspend:${number}`, [...wrong, ...(await vm.judge())]);
    await vm.box.ok(["suspend"]);
    await kill(["run", "--detach"], "SIGKILL");
    // It runs, or it is still suspended.
    const { status, stderr } = await vm.box.vm(["run", "--detach"]);
    const refused = status === 0 || status === 75 ? [] : [`run ended with ${status}: ${stderr}`];
    point(`ram:kill run:${number}`, [...refused, ...(await vm.judge())]);
  }
}
