/** Kills (SIGKILL) of backups of a running VM, whose guest writes all the time and must keep running. */
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { BusyVm } from "./busy-vm.ts";
import { seededRandom } from "./faults-lab.ts";
import { BOTH } from "./kill-faults.ts";
import { soakVariantName, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, notDone } from "./soak-speech.ts";

export const LIVE_BACKUPS: Readonly<Record<string, readonly string[]>> = {
  "live gz": ["backup", "--format=gz"],
  "live qcow2": ["backup", "--format=qcow2"],
  "live full": ["backup", "--format=qcow2", "--full"],
};

const NEXT: readonly (readonly string[])[] = [
  ["backup", "--format=qcow2"],
  ["status"],
  ["backup", "--format=gz"],
  ["snapshots", "list"],
  ["verify", "--all"],
  ["prune", "--keep-last=2"],
];

/** Leftovers of a backup in the guest's qemu. @returns problems */
export async function judgeQemu(vm: BusyVm): Promise<string[]> {
  const client = await QmpClient.connect(join(vm.lab.box.work, "qmp.sock"), 10_000);
  try {
    const nodes = await client.execute("query-named-block-nodes", { flat: true });
    const jobs = await client.execute("query-jobs");
    const { status } = await client.execute("query-status");
    const left = nodes.map((node) => node["node-name"]).filter((name) => name?.startsWith("vm-"));
    return [
      ...(left.length > 0 ? [`block nodes are left in qemu: ${left.join(" ")}`] : []),
      ...(jobs.length > 0 ? [`jobs are left in qemu: ${JSON.stringify(jobs)}`] : []),
      ...(status === "running" ? [] : [`the guest is ${status}`]),
    ];
  } finally {
    client.close();
  }
}

export async function sweepLiveKills(
  { seed, point, parent, wanted }: SoakSweep,
  kills: number,
): Promise<void> {
  const random = seededRandom(seed + 1);
  const names = Object.keys(LIVE_BACKUPS);
  const plan = Array.from({ length: kills }, (_, turn) => ({
    variant: BOTH[Math.floor(turn / names.length) % 2]!,
    name: names[turn % names.length]!,
    turn,
    moment: random() * 1.05,
    withChildren: random() < 0.25,
  }));
  for (const variant of BOTH) {
    const mine = plan.filter(
      (one) => one.variant === variant && wanted(`kills:${one.name}:${soakVariantName(variant)}`),
    );
    if (mine.length === 0) continue;
    using vm = await BusyVm.make(variant, parent);
    const { lab } = vm;
    let qemu = await vm.start();
    const times = new Map<string, number>();
    for (const { name, turn, moment, withChildren } of mine) {
      const command = LIVE_BACKUPS[name]!;
      if (!times.has(name)) times.set(name, (await lab.ok(command)).seconds);
      const before = await vm.judgeSnapshots();
      const killAfter = moment * times.get(name)! * 1000;
      const ran = await lab.run(command, { killAfter, withChildren, spare: [qemu] });
      const wrong = [...badSpeech(ran), ...(await lab.quiet([qemu])), ...(await vm.writesOn())];
      const { wrong: unlike, last } = await vm.judgeSnapshots();
      wrong.push(...unlike.map((text) => `at once: ${text}`));
      if (last && before.last && last.count < before.last.count) wrong.push("LAST has become older");
      const next = NEXT[turn % NEXT.length]!;
      wrong.push(...notDone("then", await lab.run(next)), ...(await lab.quiet([qemu])));
      if (next[0] === "backup")
        wrong.push(...(await judgeQemu(vm)).map((text) => `after ${next.join(" ")}: ${text}`));
      wrong.push(...(await vm.judgeSnapshots()).wrong.map((text) => `then: ${text}`));
      wrong.push(...(await vm.writesOn()));
      const hidden = lab.leftovers().filter((file) => file.startsWith("backups/"));
      if (["backup", "prune"].includes(next[0]!) && hidden.length > 0)
        wrong.push(`left over after ${next.join(" ")}: ${hidden.join(" ")}`);
      if (turn % 8 === 7 || vm.qemuPids().length === 0) {
        wrong.push(...notDone("now and then", await lab.run(["stop", "--force"])));
        wrong.push(...((await vm.work())?.wrong ?? ["the working disks are gone"]));
        wrong.push(...notDone("now and then", await lab.run(["prune", "--keep-last=2"])));
        qemu = await vm.start();
      }
      const what = withChildren ? "all" : "vm";
      point(`kills:${name}:${soakVariantName(variant)}:${what}:${turn}:${Math.round(moment * 100)}%`, wrong);
    }
    const end = [
      ...notDone("in the end", await lab.run(["stop", "--force"])),
      ...notDone("in the end", await lab.run(["verify", "--all", "--deep"])),
      ...notDone("in the end", await lab.run(["restore", "base1"])),
      ...((await vm.work())?.lineage === 1 ? [] : ["restore base1 gives something else"]),
      ...notDone("in the end", await lab.run(["destroy"])),
    ];
    const rest = lab.leftovers();
    if (rest.length > 0) end.push(`left over in the end: ${rest.join(" ")}`);
    point(`kills:live end:${soakVariantName(variant)}`, end);
  }
}
