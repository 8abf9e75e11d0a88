import { lstatSync, readdirSync, readlinkSync, realpathSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { exists, findSystemProgram, isProgram, PROGRAM_DIRECTORIES } from "./host.ts";

/** Maximum symlinks followed, as in the kernel (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * The system whose programs a rescue is built from: this host, or packages unpacked in a directory. Paths are absolute
 * within the system, and symlinks are resolved within it.
 */
export class SystemRoot {
  /** @param root `/` for this host */
  constructor(readonly root: string) {}

  get isHost(): boolean {
    return this.root === "/";
  }

  /** The path on this host. */
  at(path: string): string {
    return join(this.root, path);
  }

  /** The resolved path; undefined if it does not exist. */
  resolve(path: string): string | undefined {
    if (this.isHost) return exists(path) ? realpathSync(path) : undefined;
    let waiting = normalize(path).split("/").filter(Boolean);
    let found = "/";
    for (let links = 0; waiting.length > 0;) {
      const [name, ...rest] = waiting as [string, ...string[]];
      waiting = rest;
      const next = join(found, name);
      const stats = lstatSync(this.at(next), { throwIfNoEntry: false });
      if (!stats) return undefined;
      if (!stats.isSymbolicLink()) {
        found = next;
        continue;
      }
      if (++links > MAX_LINKS) return undefined;
      const target = readlinkSync(this.at(next));
      const whole = target.startsWith("/") ? target : join(found, target);
      waiting = [...whole.split("/").filter(Boolean), ...waiting];
      // `..` at the root is the root, as in a chroot.
      waiting = normalize(`/${waiting.join("/")}`)
        .split("/")
        .filter(Boolean);
      found = "/";
    }
    return found;
  }

  /** The path of a program, which may be a symlink; undefined if there is none. */
  find(name: string): string | undefined {
    if (this.isHost) return findSystemProgram(name);
    return PROGRAM_DIRECTORIES.map((directory) => join(directory, name)).find((path) => {
      const real = this.resolve(path);
      return real !== undefined && isProgram(this.at(real));
    });
  }

  /** Names in a directory; none if it does not exist. */
  list(directory: string): string[] {
    const real = this.resolve(directory);
    if (real === undefined) return [];
    try {
      return readdirSync(this.at(real));
    } catch {
      return [];
    }
  }

  /**
   * Lists files: given ones, and all below given directories.
   * @returns paths in the system, without dangling symlinks
   * @throws VmError 74 for pipes, devices and sockets
   */
  files(paths: readonly string[]): string[] {
    const found: string[] = [];
    const seen = new Set<string>();
    const waiting = [...paths];
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      const real = this.resolve(path);
      if (real === undefined) continue;
      const stats = lstatSync(this.at(real));
      if (stats.isFile()) found.push(path);
      else if (!stats.isDirectory())
        throw new VmError("io", `cannot use ${this.root}: ${path} is not a regular file`, {
          hint: "unpack the packages again",
        });
      else if (seen.size < seen.add(real).size) {
        const directory = path;
        waiting.push(...this.list(real).map((name) => join(directory, name)));
      }
    }
    return found.toReversed();
  }

  /** Default library directories (ld.so(8)), with those of multiarch. */
  libraryDirectories(): string[] {
    return ["/usr/lib", "/usr/lib64", "/lib", "/lib64"].flatMap((directory) => [
      directory,
      ...this.list(directory)
        .filter((name) => /-linux-(gnu|musl)/.test(name))
        .map((name) => join(directory, name)),
    ]);
  }
}

/** `$ORIGIN` is the directory of the file itself (ld.so(8)). */
export const expandOrigin = (directory: string, file: string): string =>
  directory.replaceAll(/\$(ORIGIN\b|\{ORIGIN\})/g, dirname(file));
