import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { exec } from "../../process/exec.ts";
import { RESCUE_DIRECTORIES, RESCUE_FILES, LINKS } from "./etc.ts";
import { execOver } from "./host.ts";
import type { SystemRoot } from "./system-root.ts";

/** Converts a path of the host to one of the rescue, whose usr is merged. */
export const mergedPath = (path: string): string =>
  normalize(`/${path}`).replace(/^\/(bin|sbin|lib|lib32|lib64)\//, "/usr/$1/");

/** The tree of the rescue under construction. Paths are absolute within the rescue. */
export class Tree {
  constructor(readonly root: string) {
    for (const [path] of RESCUE_DIRECTORIES) mkdirSync(join(root, path), { recursive: true });
    for (const [path, target] of LINKS) symlinkSync(target, join(root, path));
    for (const [path, text, mode] of RESCUE_FILES) this.write(path, text, mode);
  }

  /** Sets modes of files and directories, independent of the umask. */
  async seal(): Promise<void> {
    // This also clears set-user-ID bits, as all processes in the rescue run as root.
    await exec(["chmod", "-R", "u=rwX,go=rX", "--", this.root], { what: "cannot set modes in the rescue" });
    for (const [path, mode] of RESCUE_DIRECTORIES) chmodSync(join(this.root, path), mode);
    for (const [path, , mode] of RESCUE_FILES) chmodSync(join(this.root, path), mode);
  }

  /** Does a path exist? A dangling symlink does. */
  has(path: string): boolean {
    return lstatSync(join(this.root, path), { throwIfNoEntry: false }) !== undefined;
  }

  write(path: string, text: string, mode: number): void {
    if (!path.startsWith("/")) throw new VmError("internal", `${path} is not a path within the rescue`);
    // A normalised absolute path stays inside the tree.
    const to = join(this.root, mergedPath(path));
    mkdirSync(dirname(to), { recursive: true });
    // The existing file may be a symlink.
    rmSync(to, { force: true });
    writeFileSync(to, text);
    chmodSync(to, mode);
  }

  /** Creates a relative symlink: an absolute one would point outside the tree during the build. */
  link(path: string, target: string): void {
    // A normalised absolute path stays inside the tree.
    const place = normalize(`/${path}`);
    const at = join(this.root, place);
    if (this.has(place)) return;
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(relative(dirname(place), normalize(`/${target}`)), at);
  }

  /**
   * Copies files and directories of a system to the same paths; symlinks are resolved within the system.
   * @throws VmError 74 for other kinds of files in a system other than the host
   */
  async copy(system: SystemRoot, paths: readonly string[]): Promise<void> {
    const wanted = system.isHost ? paths : system.files(paths);
    // Two paths of the host may map to the same path; the first is used.
    const places = new Map(wanted.toReversed().map((path) => [mergedPath(path), path]));
    const byDirectory = new Map<string, string[]>();
    for (const [place, path] of places) {
      const real = system.isHost ? path : system.resolve(path);
      if (real === undefined) continue;
      // The symlink's path exists as well, and its target was resolved within the system.
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
