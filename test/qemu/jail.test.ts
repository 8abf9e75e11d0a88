import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync } from "node:fs";
import {
  buildJailArgv,
  findJailFailure,
  readJailedPid,
  signalOfStatus,
  type Jail,
} from "../../src/qemu/jail.ts";
import { pathsOfDirectory, viewOf } from "../../src/qemu/jail-view.ts";
import { Temp } from "../fixtures/temp.ts";

const ROOT: Jail["root"] = {
  bwrap: "/usr/bin/bwrap",
  offline: true,
  landlock: false,
  onFailure: () => {},
  view: () => ({
    paths: [
      { path: "/usr", access: "read" },
      { path: "/vm", access: "write" },
      { path: "/dev/kvm", access: "device" },
    ],
    links: [["/bin", "usr/bin"]],
  }),
};
const START = { directory: "/vm", infoFd: 5, reopened: [], whenOrphaned: "TERM" } as const;
const line = (jail: Jail, start: Parameters<typeof buildJailArgv>[2] = START): string =>
  buildJailArgv(jail, jail.root?.view(), start).join(" ");

describe("the words before qemu", () => {
  test("namespaces and a root", () => {
    const words = line({ root: ROOT, setpriv: "/usr/bin/setpriv", user: undefined });
    expect(words).toContain("--unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try --unshare-net");
    expect(words).toContain(
      "--symlink usr/bin /bin --ro-bind-try /usr /usr --bind-try /vm /vm --dev-bind-try /dev/kvm /dev/kvm",
    );
    expect(words).toEndWith("--remount-ro / --remount-ro /tmp --chdir /vm --");
  });

  test("with the host's network", () => {
    const root = { ...ROOT!, offline: false };
    expect(line({ root, setpriv: undefined, user: undefined })).not.toContain("--unshare-net");
  });

  test("in the background no program but qemu follows", () => {
    const start = { ...START, whenOrphaned: "none" } as const;
    expect(line({ root: ROOT, setpriv: "/usr/bin/setpriv", user: undefined }, start)).toEndWith(
      "--chdir /vm --",
    );
  });

  test("a user of its own keeps the capabilities that are named, and no group", () => {
    const user = { uid: 1_900_000_001, capabilities: ["dac_override", "chown"] };
    const kept = "-all,+dac_override,+chown";
    expect(line({ root: ROOT, setpriv: "setpriv", user })).toEndWith(
      `--reuid 1900000001 --regid 1900000001 --clear-groups --inh-caps ${kept} --ambient-caps ${kept} --bounding-set ${kept} --`,
    );
  });

  test("Landlock: writing is left to what is there for that", () => {
    const view = {
      paths: [
        { path: "/usr", access: "read" },
        { path: "/vm", access: "create" },
        { path: "/vm/disk:0", access: "write" },
        { path: "/share", access: "write", isDirectory: true },
        { path: "/dev/kvm", access: "device" },
      ],
      links: [],
    } as const;
    const jail = { root: { ...ROOT!, landlock: true }, setpriv: "setpriv", user: undefined };
    const how = { ...START, reopened: ["/proc/self/fd/4"] };
    const words = buildJailArgv(jail, view, how);
    const rights = words[words.indexOf("--landlock-access") + 1]!.replace("fs:", "");
    expect(rights).toBe(
      "write-file,make-reg,make-dir,make-sym,make-fifo,make-char,make-block,remove-file,remove-dir,refer",
    );
    expect(words.filter((word) => word.startsWith("path-beneath:"))).toEqual([
      "path-beneath:write-file:/vm/disk:0",
      `path-beneath:${rights}:/share`,
      "path-beneath:write-file:/dev/kvm",
      "path-beneath:write-file:/proc/self/fd/4",
    ]);
    expect(words.slice(words.lastIndexOf("setpriv"))).toEqual([
      "setpriv",
      "--landlock-access",
      expect.anything(),
      ...Array.from({ length: 8 }, () => expect.anything()),
      "--",
    ]);
  });

  test("without bwrap: no new privileges; without both: nothing", () => {
    expect(line({ root: undefined, setpriv: "setpriv", user: undefined })).toBe(
      "setpriv --no-new-privs --pdeathsig TERM --",
    );
    expect(line({ root: undefined, setpriv: undefined, user: undefined })).toBe("");
  });
});

test.each([
  ['{\n    "child-pid": 4711\n}', 4711],
  ["", undefined],
] as const)("the pid in %j is %p", (text, pid) => {
  expect(readJailedPid(text)).toBe(pid);
});

test.each([
  [0, undefined],
  [128, undefined],
  [137, 9],
  [143, 15],
  [255, undefined],
  [null, undefined],
])("bwrap's status %p is the signal %p", (status, signal) => {
  expect(signalOfStatus(status)).toBe(signal);
});

test.each([
  [
    "bwrap: Can't find source path /x: No such file or directory\n",
    "Can't find source path /x: No such file or directory",
  ],
  ["a line\n  bwrap: execvp qemu: No such file or directory", "execvp qemu: No such file or directory"],
  ["bwrap: a warning\nqemu: could not open disk", undefined],
  ["", undefined],
])("the failure of the jail in %j", (output, reason) => {
  expect(findJailFailure(output)).toBe(reason);
});

describe("the root", () => {
  let temp: Temp;
  beforeEach(() => void (temp = new Temp()));
  afterEach(() => temp[Symbol.dispose]());

  const here = (path: string): string => path.slice(temp.top.length);
  const view = (...wanted: Parameters<typeof viewOf>[1]) => {
    const { paths, links } = viewOf("no-such-qemu", wanted);
    return {
      paths: paths.flatMap(({ path, access }) =>
        path.startsWith(temp.top) ? [`${access} ${here(path)}`] : [],
      ),
      links: links
        .filter(([path]) => path.startsWith(temp.top))
        .map(([path, target]) => `${here(path)} ${target}`),
    };
  };

  test("holds a directory once, and in it what has another access", () => {
    mkdirSync(temp.path("vm"));
    for (const name of ["disk-0.img", "guest.env"]) temp.write(`vm/${name}`, "");
    const disk = { path: temp.path("vm/disk-0.img"), access: "write" } as const;
    expect(view(...pathsOfDirectory(temp.path("vm")), disk).paths).toEqual([
      "create /vm",
      "write /vm/disk-0.img",
      "read /vm/guest.env",
    ]);
  });

  test("a working directory in a writable share stays writable", () => {
    mkdirSync(temp.path("work"));
    const share = { path: temp.top, access: "write" } as const;
    expect(view(...pathsOfDirectory(temp.path("work")), share).paths).toEqual(["write "]);
  });

  test("of one place the widest access is in force", () => {
    const path = temp.write("disk", "");
    expect(view({ path, access: "write" }, { path, access: "read" }).paths).toEqual(["write /disk"]);
  });

  test("has the symlinks on the way, but those in its directories with these", () => {
    mkdirSync(temp.path("real/a"), { recursive: true });
    temp.write("real/a/disk", "");
    symlinkSync("real", temp.path("link"));
    symlinkSync("a", temp.path("real/b"));
    expect(view({ path: temp.path("link/b/disk"), access: "write" })).toEqual({
      paths: ["write /real/a/disk"],
      links: ["/link real", "/real/b a"],
    });
    expect(
      view({ path: temp.path("real"), access: "read" }, { path: temp.path("link/b/disk"), access: "write" }),
    ).toEqual({ paths: ["read /real", "write /real/a/disk"], links: ["/link real"] });
  });

  test("leaves out what does not exist, and survives a loop of symlinks", () => {
    symlinkSync("loop", temp.path("loop"));
    const paths = ["missing", "loop/disk"].map(
      (name) => ({ path: temp.path(name), access: "read" }) as const,
    );
    expect(view(...paths).paths.filter((one) => one.includes("missing"))).toEqual([]);
  });
});
