/** A VM whose guest says whether its RAM, its devices and its disk are of one point in time (test/guests/ram.ts). */
import { readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildRamGuest, LINUX_RAM_GUEST, readAnswers, type RamRecord } from "../guests/ram.ts";
import { guests, Sandbox, until } from "./harness.ts";
import { buildInitrd } from "./linux-initrd.ts";
import { configure } from "./tools.ts";

/** Settings of the machine: of the guest of 512 bytes, and of the Linux. */
const MACHINES = {
  sector: "MEMORY=64M\nDISKS=(AHCI=16M)\n",
  linux: "MEMORY=256M\nDISKS=(VIRT=16M)\n",
};
/** The guest counts at least once meanwhile. */
const TICKS_MS = 200;
export type RamGuest = keyof typeof MACHINES;

export class RamVm implements Disposable {
  readonly box: Sandbox;
  /** The number in the guest's RAM; it changes only with a boot. */
  number = 0;
  /** Its counter, when it was last asked. */
  count = 0;

  /** @param clone directory of a clone, in the sandbox of the VM */
  private constructor(
    box: Sandbox,
    readonly guest: RamGuest,
    readonly clone?: string,
  ) {
    this.box = box;
  }

  /** @param settings further lines of vm.conf */
  static async make(settings = "", parent?: string, guest: RamGuest = "sector"): Promise<RamVm> {
    const vm = new RamVm(new Sandbox("vm1", parent), guest);
    configure(vm.box, `${MACHINES[guest]}CORES=1\nPORT=\nSHARES=()\n${settings}\n`);
    await vm.box.ok(["create", "R"]);
    rmSync(join(vm.box.work, "FIRSTTIME"), { force: true });
    if (guest === "linux") {
      const linux = await guests();
      const initrd = await buildInitrd(vm.box, linux, LINUX_RAM_GUEST);
      const append = `${linux.append} no_timer_check`;
      vm.box.write("vm.defaults", `-kernel ${linux.kernel} -initrd ${initrd} -append "${append}"\n`);
      return vm;
    }
    const sector = join(vm.box.top, "sector");
    writeFileSync(sector, await buildRamGuest());
    await vm.diskIo(`write -q -s ${sector} 0 512`);
    return vm;
  }

  /** A clone of it in a directory beside it, which is expected to resume at a record. */
  cloneIn(name: string, { number, count }: RamRecord): RamVm {
    const vm = new RamVm(this.box, this.guest, join(this.box.top, name));
    return Object.assign(vm, { number, count });
  }

  get work(): string {
    return this.clone === undefined ? this.box.work : realpathSync(join(this.clone, ".work"));
  }

  get disk(): string {
    return join(this.work, "disk-0.img");
  }

  /** Runs a command of this VM, which must succeed. */
  ok(...words: string[]): ReturnType<Sandbox["ok"]> {
    return this.box.ok([...(this.clone === undefined ? [] : ["-d", this.clone]), ...words]);
  }

  async diskIo(...commands: string[]): Promise<string> {
    const words = commands.flatMap((one) => ["-c", one]);
    return Bun.$`qemu-io -f qcow2 ${words} ${this.disk}`.quiet().text();
  }

  /** Starts or resumes the VM in the background. */
  async run(...words: string[]): Promise<void> {
    await this.ok("run", "--detach", ...words);
  }

  /** Asks the guest on its serial console. */
  async ask(): Promise<RamRecord> {
    const before = readAnswers(this.#log()).length;
    const socket = await Bun.connect({
      unix: join(this.work, "console.sock"),
      socket: { data: () => {} },
    });
    try {
      socket.write("?");
      await until("the guest's answer", () => readAnswers(this.#log()).length > before);
    } finally {
      socket.end();
    }
    return readAnswers(this.#log()).at(-1)!;
  }

  /** Notes the number of a guest that has booted, and has it on its disk. */
  async booted(): Promise<void> {
    await until("the guest's boot", () => this.#log().includes("RAM"));
    ({ number: this.number, count: this.count } = await this.ask());
    // While it answers, it does not count.
    for (; this.count === 0; this.count = (await this.ask()).count) await Bun.sleep(TICKS_MS);
  }

  /**
   * The oracle: the guest that answers is the one that was asked before, later, and the record on its disk is that of its
   * counter. @returns what is wrong
   */
  async judge(): Promise<string[]> {
    const answer = await this.ask();
    const wrong: string[] = [];
    if (answer.number !== this.number)
      wrong.push(`another guest: ${answer.number} instead of ${this.number}`);
    if (answer.count < this.count) wrong.push(`its counter went back from ${this.count} to ${answer.count}`);
    this.count = answer.count;
    return wrong;
  }

  /** The record on the disk of a VM that is off, or suspended. */
  async record(): Promise<RamRecord> {
    // Opened for writing, a restored disk with its bitmap would be changed.
    const text = await Bun.$`qemu-io -r -f qcow2 -c ${"read -v 512 8"} ${this.disk}`.quiet().text();
    const bytes = [...text.matchAll(/^[0-9a-f]{8}: +((?:[0-9a-f]{2} +)+)/gm)][0]![1]!.trim().split(/ +/);
    const word = (at: number): number =>
      Number.parseInt(
        bytes
          .slice(at, at + 4)
          .toReversed()
          .join(""),
        16,
      );
    return { number: word(0), count: word(4) };
  }

  #log(): string {
    return readFileSync(join(this.work, "console.log"), "latin1");
  }

  [Symbol.dispose](): void {
    this.box[Symbol.dispose]();
  }
}
