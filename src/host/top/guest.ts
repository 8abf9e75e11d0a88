/** What guests say of themselves, by their agents: asked beside the table, which never waits for one. They are not trusted. */
import { join } from "node:path";
import { GuestAgent } from "../../qmp/agent.ts";
import { isObject } from "../../qmp/shape.ts";
import { WORK } from "../../store/layout.ts";

/** A filesystem of a guest. */
export interface GuestFilesystem {
  mountpoint: string;
  type: string;
  usedBytes: number;
  totalBytes: number;
}

/** For the connection, and for the reply. */
const ANSWER_MS = 500;
/** How long an answer counts; and none. */
const FRESH_MS = 10_000;
const SILENT_MS = 60_000;
const MAX_REPLY_BYTES = 1 << 20;
const MAX_FILESYSTEMS = 100;
const MAX_TEXT = 255;
/** Always full: images, which nothing is written to. */
const IMAGES: ReadonlySet<string> = new Set(["squashfs", "iso9660", "udf", "erofs", "cramfs"]);

interface Known {
  nextMs: number;
  filesystems: GuestFilesystem[] | null;
}

/** The last answers, by the pid of qemu. */
export class GuestViews {
  readonly #known = new Map<number, Known>();
  readonly #asking = new Map<number, Promise<void>>();

  /**
   * What is known; if that is old, and an agent is there, it is asked again.
   * @returns null: no agent, or it has not answered
   */
  look(pid: number, workdir: string, hasAgent: boolean): GuestFilesystem[] | null {
    const known = this.#known.get(pid);
    if (hasAgent && !this.#asking.has(pid) && performance.now() >= (known?.nextMs ?? 0))
      this.#asking.set(
        pid,
        this.#ask(pid, workdir).finally(() => this.#asking.delete(pid)),
      );
    return known?.filesystems ?? null;
  }

  /** Waits for those that are being asked: about a second at most. */
  async settle(): Promise<void> {
    await Promise.all(this.#asking.values());
  }

  async #ask(pid: number, workdir: string): Promise<void> {
    try {
      using agent = await GuestAgent.connect(
        join(workdir, WORK.agent),
        ANSWER_MS,
        undefined,
        0,
        MAX_REPLY_BYTES,
      );
      const filesystems = parseFilesystems(await agent.execute("guest-get-fsinfo", undefined, ANSWER_MS));
      this.#known.set(pid, { nextMs: performance.now() + FRESH_MS, filesystems });
    } catch {
      // It hangs, is in use, or has frozen filesystems: what was known is old.
      this.#known.set(pid, { nextMs: performance.now() + SILENT_MS, filesystems: null });
    }
  }
}

/** Pure: the reply to guest-get-fsinfo (qga/qapi-schema.json); what is none is left out. */
export function parseFilesystems(reply: unknown): GuestFilesystem[] {
  if (!Array.isArray(reply)) return [];
  return reply.slice(0, MAX_FILESYSTEMS).flatMap((item: unknown) => {
    const fields = isObject(item) ? item : {};
    const { mountpoint, type, "used-bytes": used, "total-bytes": total } = fields;
    if (typeof mountpoint !== "string" || typeof type !== "string" || IMAGES.has(type)) return [];
    if (!isByteCount(used) || !isByteCount(total) || total === 0 || used > total) return [];
    const [place, kind] = [mountpoint, type].map((text) => text.slice(0, MAX_TEXT)) as [string, string];
    return [{ mountpoint: place, type: kind, usedBytes: used, totalBytes: total }];
  });
}

const isByteCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

const shareOf = ({ usedBytes, totalBytes }: GuestFilesystem): number => usedBytes / totalBytes;

/** Pure. */
export const findFullest = (all: readonly GuestFilesystem[]): GuestFilesystem | undefined =>
  all.toSorted((one, other) => shareOf(other) - shareOf(one))[0];
