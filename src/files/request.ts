import { commandLine } from "../lib/command-line.ts";
import { usageError } from "../lib/errors.ts";
import { validateSnapshotReference } from "../store/snapshots.ts";
import { encodePath, readShownPath } from "./escaped-path.ts";
import type { SnapshotChoice } from "./snapshot.ts";

export interface ListRequest extends SnapshotChoice {
  action: "ls";
  /** Absent: list the filesystems. */
  path: string | undefined;
  recursive: boolean;
  json: boolean;
}

export interface GetRequest extends SnapshotChoice {
  action: "get";
  paths: readonly string[];
  /** A directory or a new name; `-`: standard output. */
  destination: string;
}

export interface MountRequest extends SnapshotChoice {
  action: "mount";
  /** A directory of the guest. */
  path: string;
  /** Where it is mounted. */
  directory: string;
}

export interface DiffRequest {
  action: "diff-files";
  from: string;
  to: string;
  /** Of the guest: what is compared. */
  path: string;
  remote: boolean;
  keyFile?: string | undefined;
  checksum: boolean;
  json: boolean;
}

export type FilesRequest = ListRequest | GetRequest | MountRequest | DiffRequest;

/** Arguments of `snapshots` for files. */
export interface FilesArgs {
  action?: string | undefined;
  name?: string | string[] | undefined;
  files?: boolean | undefined;
  checksum?: boolean | undefined;
  recursive?: boolean | undefined;
  remote?: boolean | undefined;
  json?: boolean | undefined;
  /** PATHs are as `ls` shows them. */
  escaped?: boolean | undefined;
  "key-file"?: string | undefined;
}

/** The most paths at once, and their length: PATH_MAX of Linux. */
const MAX_PATHS = 1000;
const MAX_PATH_BYTES = 4095;

/**
 * @param snapshot its name, and whether it is in the repository, for the hint
 * @throws 64 for what is no path in a guest
 */
export function validateGuestPath(path: string, snapshot: string, remote = false): void {
  const wrong = (why: string): Error =>
    usageError(
      `cannot use '${path.slice(0, 80)}' as a path in the guest: ${why}`,
      `give an absolute path, /etc/fstab, or one on a filesystem that ls lists: ${commandLine("snapshots", "ls", ...(remote ? ["--remote"] : []), snapshot)}`,
    );
  if (!/^([A-Za-z0-9][A-Za-z0-9+_.-]*:)?\//.test(path)) throw wrong("it is not absolute");
  if (encodePath(path).length > MAX_PATH_BYTES) throw wrong("it is too long");
  if (path.includes("\0")) throw wrong("it has a NUL");
}

type ReadPath = (word: string) => string;

/** @throws 64 for an invalid combination */
export function parseFilesRequest(args: FilesArgs): FilesRequest | undefined {
  const request = parseFilesAction(args);
  const keyFile = args["key-file"];
  if (keyFile === undefined) return request;
  if (request) return { ...request, keyFile };
  throw usageError(
    `snapshots ${args.action ?? "list"} takes no --key-file`,
    "give --key-file to: ls, get, mount, diff --files",
  );
}

function parseFilesAction(args: FilesArgs): FilesRequest | undefined {
  const words = [args.name ?? []].flat();
  const {
    action = "list",
    json = false,
    remote = false,
    recursive = false,
    checksum = false,
    escaped = false,
  } = args;
  const listsDifferences = action === "diff" && args.files === true;
  const refuse = (option: string, to: string): Error =>
    usageError(`snapshots ${action} takes no --${option}`, `give --${option} to: ${to}`);
  if (recursive && action !== "ls") throw refuse("recursive", "ls");
  if (args.files && action !== "diff") throw refuse("files", "diff");
  if (checksum && !listsDifferences) throw refuse("checksum", "diff --files");
  if (escaped && !listsDifferences && !["ls", "get", "mount"].includes(action))
    throw refuse("escaped", "ls, get, mount, diff --files");
  const read = escaped ? readShownPath : (path: string): string => path;
  if (action === "ls") return parseList(words, { recursive, json, remote }, read);
  if (action === "get") {
    if (json) throw usageError("snapshots get takes no --json", "give --json to: ls");
    return parseGet(words, remote, read);
  }
  if (action === "mount") {
    if (json) throw usageError("snapshots mount takes no --json", "give --json to: ls");
    return parseMount(words, remote, read);
  }
  if (!listsDifferences) return undefined;
  const [from, to, word, ...more] = words;
  if (from === undefined || to === undefined || more.length > 0)
    throw usageError(
      "snapshots diff --files takes two names, and a PATH or none",
      `give the earlier one first: ${commandLine("snapshots", "diff", "--files", from ?? "S0", to ?? "S1", "/etc")}`,
    );
  for (const name of [from, to]) validateSnapshotReference(name);
  const path = word === undefined ? "/" : read(word);
  validateGuestPath(path, from, remote);
  return { action: "diff-files", from, to, path, remote, checksum, json };
}

function parseList(
  [name, word, ...more]: readonly string[],
  options: Pick<ListRequest, "recursive" | "json" | "remote">,
  read: ReadPath,
): ListRequest {
  const path = word === undefined ? undefined : read(word);
  if (name === undefined)
    throw usageError(
      "snapshots ls takes the name of a snapshot",
      `the newest one: ${commandLine("snapshots", "ls", "LAST", "/etc")}`,
    );
  if (more.length > 0)
    throw usageError(
      "snapshots ls takes one path after the name of the snapshot",
      `for example: ${commandLine("snapshots", "ls", name, word!)}`,
    );
  validateSnapshotReference(name);
  if (path !== undefined) validateGuestPath(path, name, options.remote);
  else if (options.recursive)
    throw usageError(
      "snapshots ls: --recursive needs a PATH",
      commandLine("snapshots", "ls", name, "/", "--recursive"),
    );
  return { action: "ls", name, path, ...options };
}

function parseGet([name, ...words]: readonly string[], remote: boolean, read: ReadPath): GetRequest {
  if (name === undefined || words.length === 0)
    throw usageError(
      "snapshots get takes the name of a snapshot, paths in it, and a destination",
      `for example: ${commandLine("snapshots", "get", name ?? "LAST", "/etc/fstab", ".")}`,
    );
  validateSnapshotReference(name);
  const paths = (words.length === 1 ? words : words.slice(0, -1)).map(read);
  const destination = words.length === 1 ? "." : words.at(-1)!;
  if (paths.length > MAX_PATHS)
    throw usageError(`snapshots get takes at most ${MAX_PATHS} paths`, "get their directory");
  for (const path of paths) validateGuestPath(path, name, remote);
  if (destination === "-" && paths.length > 1)
    throw usageError("snapshots get: standard output takes one path", "name a directory as the last word");
  return { action: "get", name, paths, destination, remote };
}

function parseMount([name, ...words]: readonly string[], remote: boolean, read: ReadPath): MountRequest {
  const directory = words.pop();
  const [path = "/", ...more] = words.map(read);
  if (name === undefined || directory === undefined || more.length > 0)
    throw usageError(
      "snapshots mount takes a NAME, a PATH or none, and a DIR",
      `for example: ${commandLine("snapshots", "mount", name ?? "LAST", "./files")}`,
    );
  validateSnapshotReference(name);
  validateGuestPath(path, name, remote);
  return { action: "mount", name, path, directory, remote };
}
