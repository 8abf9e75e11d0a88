import { FakeQmp, type Request } from "../qmp/fake-server.ts";

/** A block job, which completes after a number of queries. */
interface Job {
  id: string;
  looks: number;
  error?: string;
  /** Its total, query by query. */
  totals?: number[];
}

/** The block layer of a qemu, as far as a backup of a running VM needs it. */
export class FakeDisks implements Disposable {
  /** Arguments of blockdev-add, by node-name. */
  readonly nodes = new Map<string, Record<string, unknown>>();
  readonly drives = new Map<string, unknown>();
  status = "running";
  /** Has the guest opened the agent's port? */
  agent = false;
  /** Queries until a job completes, its error and totals, by the job's target. */
  jobs: Record<string, Partial<Job>> = {};
  /** Commands that fail, and their errors. */
  refused: Record<string, string> = {};
  #running: Job[] = [];
  readonly #server: FakeQmp;

  constructor(
    path: string,
    disks: readonly string[],
    private readonly agentSocket = "agent.sock",
  ) {
    for (const disk of disks) {
      this.nodes.set(disk, {});
      this.drives.set(`/machine/peripheral/${disk}-dev`, disk);
    }
    this.#server = new FakeQmp(path, (request) => {
      const desc = this.refused[request.execute];
      return desc === undefined
        ? { return: this.#answer(request) ?? {} }
        : { error: { class: "GenericError", desc } };
    });
  }

  /** The commands so far, without queries. */
  get commands(): string[] {
    return this.#server.requests
      .map(({ execute }) => execute)
      .filter((name) => !/^(query-.*|qom-get|qmp_capabilities)$/.test(name));
  }

  get requests(): readonly Request[] {
    return this.#server.requests;
  }

  argsOf(command: string): unknown[] {
    return this.#server.requests
      .filter(({ execute }) => execute === command)
      .map((request) => request.arguments);
  }

  die(): void {
    this.#server.die();
  }

  #answer({ execute, arguments: args = {} }: Request): unknown {
    const { nodes, drives } = this;
    if (execute === "query-status") return { running: this.status === "running", status: this.status };
    if (execute === "stop") this.status = "paused";
    if (execute === "cont") this.status = "running";
    if (execute === "migrate_cancel") this.status = "postmigrate";
    if (execute === "query-chardev")
      return [
        { filename: `disconnected:unix:/w/${this.agentSocket},server=on`, "frontend-open": this.agent },
      ];
    if (execute === "query-named-block-nodes")
      return [...nodes].map(([name, { bitmaps = [] }]) => ({
        "node-name": name,
        drv: "qcow2",
        file: `/w/${name}`,
        image: { "virtual-size": 1 << 20 },
        "dirty-bitmaps": (bitmaps as string[]).map((bitmap) => ({ name: bitmap, count: 0, recording: true })),
      }));
    if (execute === "blockdev-add") nodes.set(args["node-name"] as string, args);
    if (execute === "blockdev-del") nodes.delete(args["node-name"] as string);
    if (execute === "qom-get") return drives.get(args.path as string);
    if (execute === "qom-set") drives.set(args.path as string, args.value);
    if (execute === "blockdev-backup")
      this.#running.push({ id: args["job-id"] as string, looks: 0, ...this.jobs[args.target as string] });
    if (execute === "query-jobs") return this.#running.map((job) => describeJob(job));
    if (execute === "job-dismiss") this.#running = this.#running.filter(({ id }) => id !== args.id);
    if (execute === "block-job-cancel")
      for (const job of this.#running) if (job.id === args.device) job.looks = 1;
    return undefined;
  }

  /** A job of an earlier command. */
  leave(job: Job): void {
    this.#running.push(job);
  }

  [Symbol.dispose](): void {
    this.#server.die();
  }
}

function describeJob(job: Job): object {
  const { id, error } = job;
  const over = job.looks-- <= 0;
  return {
    id,
    status: over ? "concluded" : "running",
    "current-progress": over ? 100 : 40,
    "total-progress": job.totals?.shift() ?? 100,
    ...(over && error !== undefined ? { error } : {}),
  };
}
