import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { buildBashArgv, type BashVariables } from "../../src/config/bash.ts";
import { exec } from "../../src/process/exec.ts";
import { Temp } from "../fixtures/temp.ts";

export const ROOT: string = join(import.meta.dir, "../..");
const SOURCE = `fatal() { printf 'vm: %s\\n' "$*" >&2; exit 1; }\n. "$1"\n`;

/** A VM's directories, in which a bundled job's hooks run like in the program. */
export class HookBench implements Disposable {
  readonly temp: Temp = new Temp();
  readonly hostdir: string = this.temp.directory("host dir");
  readonly workdir: string = this.temp.directory("work dir");
  readonly in: string = this.temp.directory("work dir/.in");

  /** Writes a file into HOSTDIR. */
  host(name: string, content: string): string {
    return this.temp.write(join("host dir", name), content);
  }

  /** Runs a hook of jobs/; `environment` is exported by the user. */
  async run(
    hook: string,
    variables: BashVariables = {},
    environment: Record<string, string> = {},
  ): Promise<{ status: number; output: string }> {
    const all = { PROG: "vm", HOSTDIR: this.hostdir, WORKDIR: this.workdir, SSHKEYS: [], ...variables };
    const done = await exec(buildBashArgv(all, `exec 2>&1\n${SOURCE}`, [join(ROOT, "jobs", hook)]), {
      cwd: this.hostdir,
      env: { SETUP_PROFILE: undefined, DESTDIR: undefined, ...environment },
      anyStatus: true,
    });
    return { status: done.status ?? -1, output: done.stdout };
  }

  list(): string[] {
    return readdirSync(this.in).toSorted();
  }

  /** A file of .in, or undefined. */
  read(name: string): string | undefined {
    const path = join(this.in, name);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  }

  /** The variables that bash has after the job has read job.env. */
  async parameters(expression: string): Promise<string> {
    const script = `set +eu; . "$1"; set -eu; printf '<%s>' ${expression}`;
    const done = await exec(["bash", "--posix", "-efu", "-c", script, "sh", join(this.in, "job.env")]);
    return done.stdout;
  }

  [Symbol.dispose](): void {
    this.temp[Symbol.dispose]();
  }
}
