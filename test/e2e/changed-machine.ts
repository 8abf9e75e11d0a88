/** Changes at random to a running VM's hardware, with live backups between; after each, qemu and `status` must agree. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { seededRandom } from "./faults-lab.ts";
import { guests, Sandbox, until } from "./harness.ts";
import { buildInitrd } from "./linux-initrd.ts";
import type { PointSink } from "./soak-lab.ts";
import { configure, freePort } from "./tools.ts";

/** Writes numbered records to the first disk without a pause, and prints a dot for each tenth. */
const GUEST = `
n=0
while :; do
  n=$((n + 1))
  printf 'REC %08d' $n >/tmp/record
  dd if=/tmp/record of=/dev/vda bs=512 seek=$((n % 10000)) conv=sync,notrunc,fsync 2>/dev/null
  [ $((n % 10)) -ne 0 ] || printf .
done
`;

/** What the machine must have. */
interface Expected {
  disks: Map<number, "VIRT" | "SCSI" | "NVME">;
  nics: Set<number>;
  down: Set<number>;
  forwards: Set<number>;
  cd: string | undefined;
}

interface Found {
  disks: number[];
  nics: number[];
  cd: string | undefined;
}

const ascending = (numbers: Iterable<number>): number[] => [...numbers].toSorted((a, b) => a - b);
const numbers = (pattern: RegExp, text: string): number[] =>
  Array.from(text.matchAll(pattern), ([, number]) => Number(number));
const isDisk = (name: string): boolean => /^disk-\d+\./.test(name);

class ChangedMachine implements Disposable {
  readonly box: Sandbox;
  readonly expected: Expected = {
    disks: new Map([[0, "VIRT"]]),
    nics: new Set([1]),
    down: new Set(),
    forwards: new Set(),
    cd: undefined,
  };

  constructor(
    readonly uefi: boolean,
    parent?: string,
  ) {
    this.box = new Sandbox("vm1", parent);
  }

  async start(): Promise<void> {
    const { box } = this;
    const iso = await guests();
    const firmware = this.uefi ? "UEFI=1\n" : "";
    configure(box, `MEMORY=512M\nCORES=1\nPORT=\nSHARES=()\nDISKS=(VIRT=16M)\n${firmware}`);
    await box.ok(["create", "Changed"]);
    const initrd = await buildInitrd(box, iso, GUEST);
    box.write("vm.defaults", `-kernel ${iso.kernel} -initrd ${initrd} -append "${iso.append}"\n`);
    await box.ok(["run", "--detach"]);
    await until("the guest's first records", () => this.dots() > 0);
  }

  dots(): number {
    return existsSync(this.box.path(".work/console.log")) ? this.box.console().split(".").length - 1 : 0;
  }

  /** Makes one change. @returns its name, and problems */
  async change(random: () => number): Promise<{ name: string; wrong: string[] }> {
    const { box, expected } = this;
    const pick = <T>(items: Iterable<T>): T | undefined => {
      const all = [...items];
      return all[Math.floor(random() * all.length)];
    };
    const { haltIso, hangIso } = await guests();
    const extra = [...expected.disks.keys()].filter((number) => number > 0);
    const added = [...expected.nics].filter((number) => number > 1);
    let addedBus: "VIRT" | "SCSI" | "NVME" | undefined;
    const changes: Record<string, (() => Promise<string[]>) | undefined> = {
      "disk add":
        extra.length < 4
          ? async () => {
              addedBus = pick(["VIRT", "SCSI", "NVME"] as const)!;
              return ["disk", "add", `${addedBus}=8M`];
            }
          : undefined,
      "disk remove":
        extra.length > 0
          ? async () => {
              const number = pick(extra)!;
              expected.disks.delete(number);
              return ["disk", "remove", String(number), "--delete"];
            }
          : undefined,
      "nic add":
        expected.nics.size < 4
          ? async () => {
              expected.nics.add([2, 3, 4].find((number) => !expected.nics.has(number))!);
              return ["nic", "add"];
            }
          : undefined,
      "nic remove":
        added.length > 0
          ? async () => {
              const number = pick(added)!;
              expected.nics.delete(number);
              expected.down.delete(number);
              return ["nic", "remove", String(number)];
            }
          : undefined,
      "nic up or down": async () => {
        const number = pick(expected.nics)!;
        const up = expected.down.has(number);
        if (up) expected.down.delete(number);
        else expected.down.add(number);
        return ["nic", up ? "up" : "down", String(number)];
      },
      "forward add":
        expected.forwards.size < 3
          ? async () => {
              const port = await freePort();
              expected.forwards.add(port);
              return ["forward", "add", `tcp:127.0.0.1:${port}-:22`];
            }
          : undefined,
      "forward remove":
        expected.forwards.size > 0
          ? async () => {
              const port = pick(expected.forwards)!;
              expected.forwards.delete(port);
              return ["forward", "remove", String(port)];
            }
          : undefined,
      cd: async () => {
        if (expected.cd !== undefined && random() < 0.5) {
          expected.cd = undefined;
          return ["cd", "--eject"];
        }
        expected.cd = pick([haltIso, hangIso])!;
        return ["cd", expected.cd];
      },
    };
    const name = pick(Object.keys(changes).filter((key) => changes[key]))!;
    const command = await changes[name]!();
    const { status, signal, stderr } = await box.vm(command);
    const wrong = status === 0 ? [] : [`${command.join(" ")}: status ${status ?? signal}: ${stderr}`];
    if (addedBus) {
      const number = Number(/ as disk (\d+) on /.exec(stderr)?.[1]);
      // The machine may have no place for the first.
      const allowed = [
        Math.max(...expected.disks.keys()) + 1,
        [1, 2, 3, 4, 5].find((one) => !expected.disks.has(one)),
      ];
      if (!allowed.includes(number)) wrong.push(`disk ${number} is none of ${allowed.join(" and ")}`);
      expected.disks.set(number, addedBus);
    }
    return { name: command.join(" "), wrong: [...wrong, ...(await this.judge())] };
  }

  /** What qemu has. */
  async #find(): Promise<Found> {
    const client = await QmpClient.connect(join(this.box.work, "qmp.sock"), 10_000);
    try {
      const nodes = await client.execute("query-named-block-nodes", { flat: true });
      const names = nodes.map((node) => node["node-name"] ?? "");
      const drives = (await client.executeUntyped("query-block")) as {
        qdev?: string;
        inserted?: { file: string };
      }[];
      const network = (await client.executeUntyped("human-monitor-command", {
        "command-line": "info network",
      })) as string;
      return {
        disks: ascending(numbers(/^disk(\d+)$/gm, names.join("\n"))),
        nics: ascending(numbers(/^ \\ net(\d+):/gm, network)).map((number) => number + 1),
        cd: drives.find(({ qdev }) => qdev?.includes("cd0-dev"))?.inserted?.file,
      };
    } finally {
      client.close();
    }
  }

  /** Compares qemu, `status` and the guest with what must be. */
  async judge(): Promise<string[]> {
    const { box, expected } = this;
    const wrong: string[] = [];
    const compare = (what: string, found: unknown, wanted: unknown): void => {
      const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
      if (a !== b) wrong.push(`${what}: ${a}, not ${b}`);
    };
    const dots = this.dots();
    const disks = ascending(expected.disks.keys());
    const nics = ascending(expected.nics);
    const found = await this.#find();
    compare("disks of qemu", found.disks, disks);
    compare("cards of qemu", found.nics, nics);
    compare("CD of qemu", found.cd, expected.cd);
    const files = readdirSync(box.work).filter(
      (name) => name.startsWith("disk-") || name.includes("partial"),
    );
    compare("files", files.toSorted(), disks.map((number) => `disk-${number}.img`).toSorted());
    const status = JSON.parse((await box.ok(["status", "--json"])).stdout) as {
      state: string;
      disks: { file: string }[];
      nics: { number: number; link: string }[];
      forwards: string[];
      nextRun?: object;
    };
    compare("state", status.state, "running");
    compare(
      "disks in status",
      status.disks.map(({ file }) => file),
      disks.map((number) => `disk-${number}.img`),
    );
    compare(
      "cards in status",
      status.nics.map(({ number, link }) => [number, link]),
      nics.map((number) => [number, expected.down.has(number) ? "down" : "up"]),
    );
    compare(
      "forwards in status",
      ascending(status.forwards.map((rule) => Number(/:(\d+)-/.exec(rule)?.[1]))),
      ascending(expected.forwards),
    );
    compare("next run", status.nextRun, undefined);
    try {
      await until("further records", () => this.dots() > dots, 60);
    } catch {
      wrong.push("the guest writes no more");
    }
    return wrong;
  }

  /** A live backup has the disks of this moment. */
  async backUp(name: string, format: string): Promise<string[]> {
    const { status, stderr } = await this.box.vm(["backup", name, `--format=${format}`]);
    if (status !== 0) return [`backup ${name}: status ${status}: ${stderr}`];
    const stored = readdirSync(this.box.path("backups", name)).filter(isDisk);
    const found = ascending(stored.map((file) => Number.parseInt(file.slice("disk-".length), 10)));
    const wanted = ascending(this.expected.disks.keys());
    return String(found) === String(wanted)
      ? []
      : [`the snapshot ${name} has disks ${found.join(" ")}, not ${wanted.join(" ")}`];
  }

  [Symbol.dispose](): void {
    this.box[Symbol.dispose]();
  }
}

/**
 * Makes changes to a running VM, with a backup after each `each` of them; then restores some of the backups.
 * @returns names of the points
 */
export async function sweepChanges(
  { seed, point, parent }: { seed: number; point: PointSink; parent?: string | undefined },
  { changes, each, uefi }: { changes: number; each: number; uefi: boolean },
): Promise<void> {
  using machine = new ChangedMachine(uefi, parent);
  const { box, expected } = machine;
  await machine.start();
  const random = seededRandom(seed);
  const disksOf = new Map<string, number[]>();
  for (let number = 1; number <= changes; number++) {
    const { name, wrong } = await machine.change(random);
    point(`changes:${number} ${name}`, wrong);
    // Each further point would repeat it.
    if (wrong.length > 0) return;
    if (number % each !== 0) continue;
    const snapshot = `S${number}`;
    disksOf.set(snapshot, ascending(expected.disks.keys()));
    const problems = await machine.backUp(snapshot, number % (2 * each) === 0 ? "gz" : "qcow2");
    point(`changes:backup after ${number}`, [...problems, ...(await machine.judge())]);
  }
  await box.ok(["stop", "--force"]);
  const verified = await box.vm(["verify", "--all"]);
  point("changes:verify", verified.status === 0 ? [] : [verified.stdout + verified.stderr]);
  for (const [snapshot, wanted] of disksOf) {
    const { status, stderr } = await box.vm(["restore", snapshot]);
    const files = readdirSync(box.work).filter((name) => isDisk(name));
    const found = ascending(files.map((file) => Number.parseInt(file.slice("disk-".length), 10)));
    const wrong = [
      ...(status === 0 ? [] : [`restore ${snapshot}: status ${status}: ${stderr}`]),
      ...(String(found) === String(wanted)
        ? []
        : [`${snapshot} is restored with disks ${found.join(" ")}, not ${wanted.join(" ")}`]),
    ];
    const last = snapshot === [...disksOf.keys()].at(-1);
    if (wrong.length === 0 && last) {
      await box.ok(["run", "--detach"]);
      await until("the guest's first records", () => machine.dots() > 0);
      wrong.push(...(await machine.judge().catch((error: unknown) => [String(error)])));
      await box.ok(["stop", "--force"]);
    }
    point(`changes:restore ${snapshot}`, wrong);
  }
  const left = await box.leftovers();
  point("changes:end", left.length === 0 ? [] : [`left over: ${left.join(" ")}`]);
}
