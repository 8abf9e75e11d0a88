/** A VM's directories in states that the program leaves, for tests of recovery. */
import { existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { stageWork, type Stage } from "../../src/store/stage.ts";
import type { Mark } from "../../src/store/mark-types.ts";
import { resolveWork, type Work } from "../../src/store/workdir.ts";
import { Temp } from "../fixtures/temp.ts";
import { writeFileSync } from "node:fs";

export const NONE: Work = { state: "none" };

/** HOSTDIR and TMPDIR of one VM. */
export class Place extends Temp {
  readonly host: string = this.directory("host");
  readonly tmp: string = this.directory("tmp");

  /** Working files with this text, ready to be committed. */
  stage(text: string, where: "tmp" | "inplace", old: Work = resolveWork(this.host)): Stage {
    const stage = stageWork(this.host, where === "inplace" ? where : { tmpdir: this.tmp }, old);
    for (const name of ["disk-0.img", "guest.env", "FIRSTTIME"]) writeFileSync(join(stage.dir, name), text);
    return stage;
  }

  /** The VM with working files with this text. Returns WORKDIR. */
  make(text: string, where: "tmp" | "inplace", mark: Partial<Mark> = {}): string {
    return this.stage(text, where).commit(mark);
  }

  /** The contents of the VM's disk, found like the program does; undefined without working files. */
  disk(): string | undefined {
    const work = resolveWork(this.host);
    if (work.state !== "present") return undefined;
    return readFileSync(join(work.dir, "disk-0.img"), "utf8");
  }

  /** All names in HOSTDIR and TMPDIR, WORKDIR's own as `W`. */
  names(): { host: string[]; tmp: string[] } {
    const tmp = readdirSync(this.tmp).map((name) => name.replace(/^vm-[0-9a-f]{8}-[0-9a-f]{8}/, "W"));
    return { host: readdirSync(this.host).toSorted(), tmp: tmp.toSorted() };
  }

  link(target: string, ...at: string[]): void {
    symlinkSync(target, this.path(...at));
  }

  has(...parts: string[]): boolean {
    return existsSync(this.path(...parts));
  }
}
