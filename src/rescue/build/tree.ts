import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { exec } from "../../process/exec.ts";
import { RESCUE_DIRECTORIES, RESCUE_FILES, LINKS } from "./etc.ts";
import { execOver } from "./host.ts";
import type { SystemRoot } from "./system-root.ts";

/** Where a path of the host stands in the rescue: its usr is merged, the host's perhaps not. */
export const mergedPath = (path: string): string =>
  normalize(`/${path}`).replace(/^\/(bin|sbin|lib|lib32|lib64)\//, "/usr/$1/");

/** The tree of the rescue while it is put together. Paths within are the rescue's own, absolute. */
export class Tree {
  constructor(readonly root: string) {
    for (const [path] of RESCUE_DIRECTORIES) mkdirSync(join(root, path), { recursive: true });
    for (const [path, target] of LINKS) symlinkSync(target, join(root, path));
    for (const [path, text, mode] of RESCUE_FILES) this.write(path, text, mode);
  }

  /** Gives files and directories their modes, whatever the umask is. */
  async seal(): Promise<void> {
    // So set-user-ID bits go too: everybody in the rescue is root.
    await exec(["chmod", "-R", "u=rwX,go=rX", "--", this.root], { what: "cannot set modes in the rescue" });
    for (const [path, mode] of RESCUE_DIRECTORIES) chmodSync(join(this.root, path), mode);
    for (const [path, , mode] of RESCUE_FILES) chmodSync(join(this.root, path), mode);
  }

  /** A link counts, wherever it leads. */
  has(path: string): boolean {
    return lstatSync(join(this.root, path), { throwIfNoEntry: false }) !== undefined;
  }

  write(path: string, text: string, mode: number): void {
    if (!path.startsWith("/")) throw new VmError("internal", `${path} is no path within the rescue`);
    // An absolute path, made plain, does not lead out of the tree.
    const to = join(this.root, mergedPath(path));
    mkdirSync(dirname(to), { recursive: true });
    // What stands there may be a link.
    rmSync(to, { force: true });
    writeFileSync(to, text);
    chmodSync(to, mode);
  }

  /** A link, relative like all of them: an absolute one would lead out of the tree while we write into it. */
  link(path: string, target: string): void {
    // An absolute path, made plain, does not lead out of the tree.
    const place = normalize(`/${path}`);
    const at = join(this.root, place);
    if (this.has(place)) return;
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(relative(dirname(place), normalize(`/${target}`)), at);
  }

  /**
   * Copies files and directories of a system to their own places; links are followed, within the system.
   * @throws VmError 74 for what is no file in another system than the host's
   */
  async copy(system: SystemRoot, paths: readonly string[]): Promise<void> {
    const wanted = system.isHost ? paths : system.files(paths);
    // By two names of the host the same place may be meant; the first is as good as the second.
    const places = new Map(wanted.toReversed().map((path) => [mergedPath(path), path]));
    const byDirectory = new Map<string, string[]>();
    for (const [place, path] of places) {
      const real = system.isHost ? path : system.resolve(path);
      if (real === undefined) continue;
      // By its link's name it is found as well, and the link leads nowhere out of the system.
      if (!system.isHost && mergedPath(real) !== place) this.link(place, mergedPath(real));
      const directory = dirname(system.isHost ? place : mergedPath(real));
      byDirectory.set(directory, [...(byDirectory.get(directory) ?? []), system.at(real)]);
    }
    for (const [directory, files] of byDirectory) {
      const to = join(this.root, directory);
      if (!existsSync(to)) mkdirSync(to, { recursive: true });
      await execOver(["cp", "-L", "-r", "-t", to, "--"], files, {
        what: "cannot copy programs into the rescue",
      });
    }
  }
}
