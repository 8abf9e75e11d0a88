/**
 * A qemu's jail: bubblewrap (bwrap(1)) gives it namespaces and a root that holds only its own files, setpriv(1) a user and
 * privileges. Paths in it equal those outside: argument lists and QMP commands stay as they are.
 */

/**
 * A file or directory in a jail. `create`: qemu creates its sockets there when it starts, and cannot write there once it
 * runs (seal-jail.ts). `device`: with its device nodes.
 */
export interface JailPath {
  /** Absolute, symlinks resolved. */
  path: string;
  access: "read" | "create" | "write" | "device";
  /** Of those to write to. */
  isDirectory?: boolean;
}

/** The lowest user of qemus that root starts: above those that systems give out. */
export const FIRST_UID = 1_900_000_000;

/** What a jail's root holds. */
export interface JailView {
  /** Outer ones first. */
  paths: readonly JailPath[];
  /** Symlinks on the way to them: path and target. */
  links: readonly (readonly [path: string, target: string])[];
}

/** The namespaces and the root. */
export interface JailRoot {
  /** Full path of bwrap. */
  bwrap: string;
  /** A network namespace without any network. */
  offline: boolean;
  /** setpriv has the kernel refuse writing elsewhere (landlock(7)). */
  landlock: boolean;
  /** What it holds, as it is when qemu is started. */
  view: () => JailView;
  /** Called if bwrap fails, before qemu is started without a root of its own. */
  onFailure: (reason: string) => void;
}

export interface Jail {
  /** Absent: qemu sees the host's files and processes. */
  root: JailRoot | undefined;
  /** Full path of util-linux's setpriv; absent: privileges stay as they are. */
  setpriv: string | undefined;
  /** Started by root: the user that qemu runs as, and all capabilities that it has. */
  user: { uid: number; capabilities: readonly string[] } | undefined;
}

/** How a qemu is started in a jail. */
export interface JailStart {
  /** Its working directory. */
  directory: string;
  /** A pipe that bwrap tells the pid of qemu (`readJailedPid`). */
  infoFd: number;
  /** Paths of descriptors that it inherits and opens again, perhaps for writing. */
  reopened: readonly string[];
  /** Signal that it gets when the program that started it dies; with a root of its own, by watch-jailed.ts. */
  whenOrphaned: "TERM" | "none";
}

/** Pure: the words in front of qemu's command line. @param view of its root */
export function buildJailArgv(
  { root, setpriv, user }: Jail,
  view: JailView | undefined,
  start: JailStart,
): string[] {
  return [
    ...(root && view ? buildRootArgs(root, view, start) : []),
    ...buildPrivilegeArgs(root, setpriv, user, start, view),
  ];
}

/** qemu is the first process of its PID namespace: none is left beside it. bwrap itself sets no_new_privs. */
function buildRootArgs(
  { bwrap, offline }: JailRoot,
  { paths, links }: JailView,
  { directory, infoFd }: JailStart,
): string[] {
  return [
    bwrap,
    "--unshare-ipc",
    "--unshare-pid",
    "--unshare-uts",
    "--unshare-cgroup-try",
    ...(offline ? ["--unshare-net"] : []),
    "--as-pid-1",
    "--info-fd",
    String(infoFd),
    "--tmpfs",
    "/tmp",
    "--proc",
    "/proc",
    ...links.flatMap(([path, target]) => ["--symlink", target, path]),
    ...paths.flatMap(({ path, access }) => [BINDS[access], path, path]),
    ...["/", "/tmp"].flatMap((path) => ["--remount-ro", path]),
    "--chdir",
    directory,
    "--",
  ];
}

/** `-try`: a file may have gone since the view was made. qemu then says which one it misses. */
const BINDS = {
  read: "--ro-bind-try",
  create: "--bind-try",
  write: "--bind-try",
  device: "--dev-bind-try",
} as const;

function buildPrivilegeArgs(
  root: JailRoot | undefined,
  setpriv: string | undefined,
  user: Jail["user"],
  { whenOrphaned, reopened }: JailStart,
  view: JailView | undefined,
): string[] {
  const kept = user && ["-all", ...user.capabilities.map((name) => `+${name}`)].join(",");
  const options = [
    ...(root ? [] : ["--no-new-privs"]),
    // A change of the user clears it.
    ...(root || whenOrphaned === "none" ? [] : ["--pdeathsig", whenOrphaned]),
    ...(user
      ? [
          "--reuid",
          String(user.uid),
          "--regid",
          String(user.uid),
          "--clear-groups",
          "--inh-caps",
          kept!,
          "--ambient-caps",
          kept!,
          "--bounding-set",
          kept!,
        ]
      : []),
    ...(root?.landlock && view ? buildLandlockArgs(view.paths, reopened) : []),
  ];
  return setpriv === undefined || options.length === 0 ? [] : [setpriv, ...options, "--"];
}

/** What Landlock (landlock(7)) refuses a qemu where it is not allowed. It may create sockets. */
const FILE_RIGHTS = "write-file";
const RIGHTS = [
  FILE_RIGHTS,
  ...["reg", "dir", "sym", "fifo", "char", "block"].map((kind) => `make-${kind}`),
  "remove-file",
  "remove-dir",
  // To rename from one directory to another.
  "refer",
].join(",");

/**
 * Arguments of util-linux's setpriv, from version 2.40 on, by which qemu writes only to what it is given for that. Other than
 * sealing (seal-jail.ts), that needs no capabilities, and is in force when qemu is started.
 * @param descriptors paths of those that qemu inherits and opens again
 */
const buildLandlockArgs = (paths: readonly JailPath[], descriptors: readonly string[]): string[] => [
  "--landlock-access",
  `fs:${RIGHTS}`,
  ...paths
    .filter(({ access }) => access === "write" || access === "device")
    .flatMap(({ path, isDirectory }) => allow(isDirectory ? RIGHTS : FILE_RIGHTS, path)),
  ...descriptors.flatMap((path) => allow(FILE_RIGHTS, path)),
];

const allow = (rights: string, path: string): string[] => [
  "--landlock-rule",
  `path-beneath:${rights}:${path}`,
];

/** The pid that bwrap has written (bwrap(1), --info-fd); undefined if there is none. */
export function readJailedPid(text: string): number | undefined {
  const pid = Number(/"child-pid":\s*(\d+)/.exec(text)?.[1]);
  return pid > 0 ? pid : undefined;
}

/** bwrap's own message, if it has not started qemu. @param output of both */
export const findJailFailure = (output: string): string | undefined =>
  /^\s*bwrap: (.*)$/.exec(output.trim().split("\n").at(-1) ?? "")?.[1];

/** bwrap exits with 128 + N for a signal N. */
export const signalOfStatus = (status: number | null): number | undefined =>
  status !== null && status > 128 && status < 128 + 65 ? status - 128 : undefined;
