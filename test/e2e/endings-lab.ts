/**
 * The laboratory of endings.test.ts: a VM in known states, programs that can be killed or stopped when they are
 * started, and an observer that checks from outside (/proc, the disks, the snapshot directory) what a command
 * has really done.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { listFuseMounts, unmountFuse } from "../../src/process/mounts.ts";
import { initRepository } from "../fixtures/restic-repository.ts";
import { processesIn, guests, until, type Result, type Running, type Sandbox } from "./harness.ts";
import { configure, listing, sha256, shell, smallSandbox } from "./tools.ts";

/** Programs that are replaced by a wrapper. */
const CHILDREN = [
  "qemu-img",
  "qemu-system-x86_64",
  "pigz",
  "dd",
  "restic",
  "ssh",
  "scp",
  "openssl",
  "sha256sum",
  "bash",
  "cp",
  "chmod",
];

const { SIGTERM } = constants.signals;

/** Effect on a child as soon as it is started: it dies, or hangs. */
export interface Catch {
  child: string;
  action: "KILL" | "STOP";
  /** Text in its arguments. */
  pattern?: string;
}

export interface State {
  /** Each working disk by the checksum of its guest-visible contents; empty while a guest may write. */
  disks: Record<string, string>;
  /** Each snapshot by its files. */
  snapshots: Record<string, string>;
  last: string | undefined;
}

export const STATES = ["nothing", "off", "images"] as const;
export type StateName = (typeof STATES)[number];

/** Without a jail, in which the stand-ins of `EndingsLab` would not see their plan. */
const SETTINGS = "JAIL=off\nMEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\nSTOP_TIMEOUT=1\n";

/** Random data, to give disks and snapshots a size. */
const FILL = "dd if=/dev/urandom of=fill bs=1M count=4 status=none";

export class EndingsLab implements Disposable {
  readonly box: Sandbox = smallSandbox();
  readonly #store: string;
  readonly #plan: string;
  readonly #caught: string;
  haltIso = "";
  hangIso = "";
  /** Of the VM in the state "off". */
  uuid = "";

  constructor() {
    const { top } = this.box;
    this.#store = join(top, "store");
    this.#plan = join(top, "plan");
    this.#caught = join(top, "caught");
    const bin = join(top, "bin");
    for (const directory of [this.#store, bin]) mkdirSync(directory);
    for (const name of CHILDREN) {
      const real = Bun.which(name);
      if (real === null) continue;
      const file = join(bin, name);
      writeFileSync(
        file,
        `#!/bin/sh
if [ -f '${this.#plan}' ]; then
  read -r child action pattern <'${this.#plan}'
  if [ "$child" = ${name} ]; then
    case " $* " in *"$pattern"*)
      rm -f '${this.#plan}'
      echo $$ >'${this.#caught}.new' && mv '${this.#caught}.new' '${this.#caught}'
      kill -"$action" $$
    esac
  fi
fi
exec ${real} "$@"
`,
      );
      chmodSync(file, 0o755);
    }
    this.box.environment.PATH = `${bin}:${process.env.PATH}`;
  }

  /** Creates the initial states of the rows. */
  async prepare(): Promise<void> {
    const { box } = this;
    ({ haltIso: this.haltIso, hangIso: this.hangIso } = await guests());
    configure(box, SETTINGS);
    await this.#save("nothing");
    await box.ok(["create", "G"]);
    this.uuid = (await box.ok(["identity"])).stdout;
    rmSync(join(box.work, "FIRSTTIME"));
    await this.write(0);
    await box.ok(["backup"]);
    await this.write(4);
    await box.ok(["backup"]);
    await this.write(8);
    await this.#save("off");
    for (const name of ["S0", "S1", "LAST"]) rmSync(box.path("backups", name), { recursive: true });
    const repository = join(box.top, "repository");
    writeFileSync(join(box.home, "password"), "secret", { mode: 0o600 });
    configure(
      box,
      `${SETTINGS}SNAPSHOT_FORMAT=qcow2\nSNAPSHOT_REPO='${repository}'\nSNAPSHOT_PASSWORD_FILE='${box.home}/password'\n`,
    );
    for (const [name, at] of [
      ["Q0", 2],
      ["Q1", 6],
      ["Q2", 10],
    ] as const) {
      await this.write(at);
      await box.ok(["backup", name]);
    }
    await this.write(12);
    initRepository(repository, join(box.home, "password"));
    await this.#save("images");
  }

  /** Changes the VM's disk like a guest. */
  async write(megabyte: number): Promise<void> {
    const { top, work } = this.box;
    await shell(`${FILL}; qemu-io -f qcow2 -c 'write -q -s fill ${megabyte}M 2M' '${work}/disk-0.img'`, top);
  }

  async #save(name: StateName): Promise<void> {
    await shell(
      `mkdir '${name}'; cp -a $(ls -d ../vm1 ../home ../tmp ../repository 2>/dev/null) '${name}'`,
      this.#store,
    );
  }

  /** Brings the VM into a state, replacing the present one. */
  async load(name: StateName): Promise<void> {
    await this.endAll();
    rmSync(this.#plan, { force: true });
    rmSync(this.#caught, { force: true });
    const { top } = this.box;
    listFuseMounts(top).forEach(unmountFuse);
    await shell(`rm -rf vm1 home tmp out repository; cp -a store/${name}/. .; mkdir out`, top);
  }

  /** Starts the VM in the background, with an idle guest that ignores the power button. */
  async runDetached(more: readonly string[] = []): Promise<number> {
    await this.box.ok(["run", "--detach", ...more, this.hangIso]);
    const { stdout } = await this.box.ok(["status", "--json"]);
    await until("the guest", () => this.box.console().includes("HANGING"));
    return (JSON.parse(stdout) as { pid: number }).pid;
  }

  /** Builds a rescue once, and some jobs. */
  async prepareJobs(): Promise<void> {
    const { box } = this;
    configure(
      box,
      `${SETTINGS}PROFILES='${join(box.top, "profiles")}'\nRESCUE_MEMORY=512M\nRESCUE_WARM=off\n`,
    );
    if (!existsSync(join(box.top, "profiles"))) await box.ok(["rescue", "build"]);
    for (const [name, text] of Object.entries({
      short: "echo hello",
      failing: "exit 3",
      long: "sleep 1000",
      hooked: ":",
    }))
      box.write(`${name}.job`, `${text}\n`);
    box.write("hooked.pre", ":\n");
  }

  /** The effect on the next child of this kind. */
  arm({ child, action, pattern = "" }: Catch): void {
    writeFileSync(this.#plan, `${child} ${action} ${pattern}\n`);
  }

  /** Waits until the armed effect has caught a child. @returns its process id */
  async caught(command: Running): Promise<number> {
    let over = false;
    void command.done.then(() => (over = true));
    await until("the child", () => {
      if (over && !existsSync(this.#caught))
        throw new Error(`no such child was started:\n${command.stderr()}`);
      return existsSync(this.#caught);
    });
    return Number(readFileSync(this.#caught, "utf8"));
  }

  /** Waits until the program handles stop signals (proc_pid_status(5), SigCgt), and is working. */
  async listens({ pid }: Running): Promise<void> {
    await until("its signal handlers", () => {
      const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
      return (Number.parseInt((caught ?? "0").slice(-8), 16) & (1 << (SIGTERM - 1))) !== 0;
    });
    await Bun.sleep(500);
  }

  processes(): string[] {
    return processesIn(this.box.top).filter((line) => !line.startsWith(`${process.pid} `));
  }

  async endAll(): Promise<void> {
    await until("the end of all processes", () => {
      const all = this.processes();
      for (const line of all) endProcess(Number.parseInt(line, 10));
      return all.length === 0;
    });
  }

  /** @param running a guest writes to the disks */
  state(running = false): State {
    const { box } = this;
    const link = box.path(".work");
    const work = existsSync(link) ? box.work : undefined;
    const disks = work === undefined ? [] : readdirSync(work).filter((name) => /^disk-\d+\.img$/.test(name));
    const backups = box.path("backups");
    const snapshots = existsSync(backups)
      ? readdirSync(backups).filter((name) => !name.startsWith(".") && name !== "LAST")
      : [];
    const last = join(backups, "LAST");
    return {
      disks: Object.fromEntries(
        disks.map((name) => [name, running ? "" : contentOf(join(work!, name), join(box.top, "raw"))]),
      ),
      snapshots: Object.fromEntries(snapshots.map((name) => [name, listing(join(backups, name)).join("\n")])),
      last: lstatSync(last, { throwIfNoEntry: false }) ? readlinkSync(last) : undefined,
    };
  }

  /** Do the snapshot's files match its checksums? */
  async isWhole(name: string): Promise<boolean> {
    const child = Bun.spawn(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], {
      cwd: this.box.path("backups", name),
      stderr: "ignore",
    });
    return (await child.exited) === 0;
  }

  /** Mounts a filesystem of this size over a directory of the sandbox, with its files. */
  async mount(place: "vm1" | "tmp" | "out" | "repository", room: string): Promise<AsyncDisposable> {
    const { top } = this.box;
    await shell(
      `cp -a ${place} under; mount -t tmpfs -o size=64m,mode=700 vm-endings ${place}; cp -a under/. ${place}; rm -rf under
      used=$(df --output=used -k ${place} | tail -1); mount -o remount,size=$((used + ${room}))k ${place}`,
      top,
    );
    return {
      [Symbol.asyncDispose]: async () => {
        await this.endAll();
        await shell(`umount ${place} || umount -l ${place}`, top);
      },
    };
  }

  /** Uses up the space of a directory's filesystem. */
  async fill(place: "vm1" | "tmp" | "out"): Promise<void> {
    await shell(`dd if=/dev/zero of=${place}/filling bs=4k status=none 2>/dev/null || :`, this.box.top);
  }

  [Symbol.dispose](): void {
    listFuseMounts(this.box.top).forEach(unmountFuse);
    this.box[Symbol.dispose]();
  }
}

/** The guest-visible contents of a disk: without bitmaps, which a backup writes to the file. */
function contentOf(path: string, raw: string): string {
  const { exitCode, stderr } = Bun.spawnSync(["qemu-img", "convert", "-O", "raw", path, raw]);
  const sum = exitCode === 0 ? sha256(raw) : `not readable: ${stderr.toString()}`;
  rmSync(raw, { force: true });
  return sum;
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}

/** Lines of a command's stderr that are errors. */
export const errorsOf = ({ stderr }: Result): string[] => stderr.match(/^vm: (?!warning).*/gm) ?? [];
