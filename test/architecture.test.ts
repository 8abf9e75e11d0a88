/** Checks the rules of src/README.md for the source tree: allowed imports, owners of packages, names. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { ARCHES } from "../src/machine/types.ts";

const ROOT = resolve(import.meta.dir, "..");
const SRC = join(ROOT, "src");

interface Module {
  /** Below src: `qemu/argv.ts`. */
  name: string;
  text: string;
  /** Without comments and quoted text. */
  code: string;
  /** Imported modules below src. */
  own: string[];
  /** Packages and `node:` modules, as written. */
  foreign: string[];
}

function readModule(name: string): Module {
  const text = readFileSync(join(SRC, name), "utf8");
  const specifiers = [
    ...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"/gm),
    ...text.matchAll(/^import\s+"([^"]+)"/gm),
    ...text.matchAll(/\b(?:import|require)\(\s*"([^"]+)"\s*\)/g),
  ].map((match) => match[1]!);
  const code = text
    .replaceAll(/\/\*[^]*?\*\//g, "")
    .replaceAll(/(^|\s)\/\/.*$/gm, "")
    .replaceAll(/"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g, '""');
  return {
    name,
    text,
    code,
    own: specifiers
      .filter((word) => word.startsWith("."))
      .map((word) => relative(SRC, resolve(SRC, dirname(name), word))),
    foreign: specifiers.filter((word) => !word.startsWith(".")),
  };
}

const MODULES = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .toSorted()
  .map(readModule);

/**
 * The floors, highest first (src/README.md). A module imports from its own folder and from lower floors, types and
 * `import()` included. Folders of one floor do not import each other.
 */
const FLOORS: readonly (readonly string[])[] = [
  ["main.ts"],
  ["cli"],
  ["commands"],
  ["files"],
  ["job", "snapshot", "lifecycle", "guest", "host"],
  ["vm"],
  ["live"],
  ["rescue"],
  ["network"],
  ["store"],
  ["qemu"],
  ["qmp"],
  ["config"],
  ["machine"],
  ["process"],
  ["lib"],
];

/** Imports between folders of one floor, each with its reason. */
const BETWEEN: Readonly<Record<string, string>> = {
  // `run` restores the last snapshot of a VM whose working files are gone [compat].
  "lifecycle/run.ts": "snapshot/restore.ts",
  // `run` mounts the repository that disks are still copied from.
  "lifecycle/run-arriving.ts": "snapshot/remote/arriving.ts",
  // doctor lists the rescues that a job would find.
  "host/doctor/rescue.ts": "job/rescue-list.ts",
};

const folderOf = (name: string): string => name.split("/")[0]!;
const floorOf = (name: string): number => FLOORS.findIndex((folders) => folders.includes(folderOf(name)));
const inFolder = (folder: string): Module[] => MODULES.filter(({ name }) => folderOf(name) === folder);

/** May `name` import `target`? */
function isAllowed(name: string, target: string): boolean {
  if (folderOf(name) === folderOf(target) || BETWEEN[name] === target) return true;
  return floorOf(target) > floorOf(name);
}

/** Pure functions in folders with other modules. */
const ALSO_PURE = [
  "cli/argv.ts",
  "cli/batch.ts",
  "cli/colours.ts",
  "cli/complete/line.ts",
  "cli/complete/place.ts",
  "cli/complete/values.ts",
  "cli/exit-statuses.ts",
  "cli/getopt.ts",
  "cli/invocation.ts",
  "cli/manual/page.ts",
  "cli/manual/prose.ts",
  "cli/manual/roff.ts",
  "cli/manual/topics.ts",
  "lib/nearest.ts",
  "cli/options.ts",
  "cli/signature.ts",
  "cli/suggest.ts",
  "cli/usage.ts",
  "lib/cron.ts",
  "lib/errors.ts",
  "lib/size.ts",
  "lib/systemd.ts",
  "lib/time.ts",
  "qemu/argv.ts",
  "qemu/capabilities.ts",
  "qemu/script.ts",
  "qemu/text.ts",
  "qmp/commands.ts",
  "qmp/errors.ts",
  "qmp/events.ts",
  "qmp/protocol.ts",
  "qmp/shape.ts",
  "store/guest-env.ts",
  "store/layout.ts",
  "store/manifest.ts",
  "store/retention.ts",
];

/** Folders with pure modules only. */
const PURE_FOLDERS = /^(machine|qemu\/devices)\/|^config\/(?!bash|load|trust)/;

const PURE = MODULES.filter(({ name }) => PURE_FOLDERS.test(name) || ALSO_PURE.includes(name));

test("the scan finds imports", () => {
  expect(readModule("cli/cli.ts").own).toContain("vm/find.ts");
  expect(readModule("cli/check.ts").foreign).toContain("citty");
  expect(readModule("commands/run.ts").own).toContain("lifecycle/run.ts");
  expect(MODULES.length).toBeGreaterThan(50);
});

test("every module is on a floor, and every folder has a module", () => {
  expect(MODULES.filter(({ name }) => floorOf(name) < 0).map(({ name }) => name)).toEqual([]);
  expect(FLOORS.flat().filter((folder) => inFolder(folder).length === 0)).toEqual([]);
});

test("each exception for imports within a floor is in use", () => {
  const used = Object.entries(BETWEEN).filter(([name, target]) => readModule(name).own.includes(target));
  expect(used).toEqual(Object.entries(BETWEEN));
});

test("all listed pure modules exist", () => {
  const known = new Set(MODULES.map(({ name }) => name));
  expect(ALSO_PURE.filter((name) => !known.has(name))).toEqual([]);
});

describe("imports go down:", () => {
  test.each(MODULES.map((module) => [module.name, module] as const))("%s", (name, { own }) => {
    const inside = own.filter((target) => target.endsWith(".ts"));
    expect(inside.filter((target) => !isAllowed(name, target))).toEqual([]);
    // Outside of src: package.json, for version and date, and embedded files.
    const outside = own.filter((target) => target.startsWith(".."));
    const allowed: Record<string, RegExp> = {
      "cli/licenses.ts": /^\.\.\/(LICENSE|package\.json|node_modules\/[^.]+|scripts\/licenses\/.+)$/,
      "cli/version.ts": /^\.\.\/package\.json$/,
      "cli/manual/page.ts": /^\.\.\/package\.json$/,
      "network/lan.ts": /^\.\.\/scripts\/network\/lan\.sh$/,
      "rescue/assets.ts": /^\.\.\/(jobs|scripts\/rescue)\//,
    };
    expect(outside.filter((target) => !allowed[name]?.test(target))).toEqual([]);
  });
});

test("no module imports itself through others", () => {
  const graph = new Map(MODULES.map(({ name, own }) => [name, own]));
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (name: string, path: string[]): void => {
    if (path.includes(name)) return void circles.push([...path.slice(path.indexOf(name)), name].join(" → "));
    if (done.has(name)) return;
    for (const target of graph.get(name) ?? []) visit(target, [...path, name]);
    done.add(name);
  };
  for (const name of graph.keys()) visit(name, []);
  expect(circles).toEqual([]);
});

describe("pure:", () => {
  test.each(PURE.map((module) => [module.name, module] as const))("%s", (_name, { foreign, code }) => {
    const effects = foreign.filter((word) => !/^(node:path|defu|pathe)$/.test(word));
    expect(effects).toEqual([]);
    expect(
      code.match(/\b(process\.\w+|Bun\.\w+|console\.\w+|Date\.now|new Date\(\)|Math\.random)\b/g) ?? [],
    ).toEqual([]);
  });
});

describe("each package has one owner:", () => {
  test.each<[string, RegExp]>([
    ["citty", /^(cli|commands)\//],
    ["zx", /^process\//],
    ["zx/core", /^process\//],
    ["consola", /^lib\/log\.ts$/],
    ["consola/core", /^lib\/log\.ts$/],
    ["defu", /^config\/merge\.ts$/],
    ["pathe", /^cli\/surroundings\.ts$/],
    ["bun:ffi", /^process\/(c-library|libc)\.ts$/],
    ["node:child_process", /^process\/zx\.ts$/],
  ])("%s: %p", (name, owner) => {
    const importers = MODULES.filter(({ foreign }) => foreign.includes(name)).map((module) => module.name);
    expect(importers.filter((importer) => !owner.test(importer))).toEqual([]);
  });

  test("no other packages", () => {
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
      dependencies: Record<string, string>;
    };
    const used = new Set(MODULES.flatMap(({ foreign }) => foreign.map((word) => word.split("/")[0]!)));
    const outside = [...used].filter((word) => !/^(node|bun)(:|$)/.test(word));
    expect(outside.toSorted()).toEqual(Object.keys(dependencies).toSorted());
  });
});

test.each(MODULES.map(({ name }) => name).filter((name) => name !== "main.ts"))(
  "%s does not exit",
  (name) => {
    expect(readModule(name).code).not.toMatch(/\bprocess\s*\.\s*(exit|abort|reallyExit|exitCode)\b/);
  },
);

test.each(MODULES)("$name has at most 400 lines, and a kebab-case name", ({ name, text }) => {
  expect(text.split("\n").length - 1).toBeLessThanOrEqual(400);
  expect(name).toMatch(/^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+(-[a-z0-9]+)*\.ts$/);
});

test("what is held by `using` is held until a returned promise settles", () => {
  const early = MODULES.flatMap(({ name, code }) => {
    const lines = code.split("\n");
    return lines.flatMap((line, index) => {
      const indent = /^( *)(await )?using /.exec(line)?.[1];
      if (indent === undefined) return [];
      const end = lines.findIndex((next, at) => at > index && next.trim() && !next.startsWith(indent));
      const block = lines.slice(index, end < 0 ? undefined : end);
      return block
        .filter((next) => /\breturn (?!await\b|log\.)[\w.]+\(/.test(next))
        .map((next) => `${name}: ${next.trim()}`);
    });
  });
  expect(early).toEqual([]);
});

test("commands have a default export, everything else named ones", () => {
  const defaults = MODULES.filter(({ code }) => /^export default\b/m.test(code)).map(({ name }) => name);
  const commands = inFolder("commands").map(({ name }) => name);
  expect(defaults).toEqual(commands.filter((name) => name !== "commands/define.ts"));
});

test("names are imported from the module that defines them", () => {
  const again = MODULES.filter(({ code }) => /^export (type )?(\*|\{)/m.test(code)).map(({ name }) => name);
  expect(again).toEqual([]);
});

test("names of functions, types and exports are unique", () => {
  const places = new Map<string, string[]>();
  for (const { name, code } of MODULES)
    for (const [, word] of code.matchAll(
      /^(?:(?:export )?(?:async )?(?:function\*?|class|interface|type)|(?:export )?const(?= \w+(?:: [^=]+)? = (?:async )?(?:<[^>]*>)?\()|export const) (\w+)/gm,
    ))
      places.set(word!, [...(places.get(word!) ?? []), name]);
  expect([...places].filter(([, found]) => found.length > 1)).toEqual([]);
});

test("only the table of architectures distinguishes them", () => {
  const others = MODULES.filter(({ name }) => !/^machine\/(arch|types)\.ts$/.test(name));
  const names = ARCHES.join("|");
  const asked = others.filter(({ text }) =>
    new RegExp(`[!=]==? "(${names})"|\\bcase "(${names})"`).test(text),
  );
  expect(asked.map(({ name }) => name)).toEqual([]);
});

test("only agreed names are in the top directory", () => {
  const listed = Bun.spawnSync(["git", "ls-files", "-z"], { cwd: ROOT });
  if (listed.exitCode !== 0) return; // Without git: a source archive.
  const names = new Set(
    listed.stdout
      .toString()
      .split("\0")
      .filter(Boolean)
      .map((path) => path.split("/")[0]!),
  );
  const agreed = [
    "LICENSE",
    "README.md",
    "bun.lock",
    "bunfig.toml",
    "jobs",
    "package.json",
    "scripts",
    "src",
    "test",
    "tsconfig.json",
  ];
  expect([...names].filter((name) => !name.startsWith(".") && !agreed.includes(name))).toEqual([]);
});

test.each([
  ["directories are watched", /\bwatch\(/, ["process/watch-directory.ts"]],
  ["Bun connects to sockets", /\bBun\.connect\b/, ["process/unix-socket.ts"]],
  [
    "Unix sockets are addressed",
    /\bwithSocketAddress\(/,
    ["guest/console.ts", "process/unix-socket.ts", "qmp/send-descriptor.ts"],
  ],
  ["qemu is terminated by QMP", /\bexecute\("quit"\)/, ["qemu/session.ts", "vm/kill-machine.ts"]],
])("%s in one place", (_what, pattern, places) => {
  const found = MODULES.filter(({ text }) => pattern.test(text)).map(({ name }) => name);
  expect(found).toEqual(places);
});

/** Untrusted text from a guest, an image, a repository or a directory passes one of these on its way to a terminal. */
test("hooks, check-media, viewers, ssh, pagers and notifiers run as programs of the user", () => {
  const starters = MODULES.filter(({ text }) => /\brunAs: "user"/.test(text)).map(({ name }) => name);
  expect(starters).toEqual([
    "config/bash.ts",
    "guest/ssh.ts",
    "guest/view.ts",
    "host/manual.ts",
    "host/notify.ts",
    "rescue/hooks.ts",
    "vm/media.ts",
    "vm/viewer.ts",
  ]);
});

test("only a few modules write to the standard streams", () => {
  const owners = MODULES.filter(({ code }) =>
    /\b(console\s*\.|Bun\.(stdout|stderr)\b|process\.(stdout|stderr)\b|\b(writeSync|appendFileSync)\(\s*[12]\b)/.test(
      code,
    ),
  ).map(({ name }) => name);
  // The progress display reads the terminal's width from process.stderr; `--version` avoids node:fs.
  expect(owners).toEqual(["cli/progress.ts", "lib/standard-streams.ts", "main.ts"]);
  const writers = MODULES.filter(({ code }) => /\b(writeTo|writeError)\(/.test(code)).map(({ name }) => name);
  expect(writers).toEqual([
    "cli/ask.ts",
    "cli/progress.ts",
    "config/bash.ts",
    "lib/log.ts",
    "lib/standard-streams.ts",
    "process/stdout.ts",
    "process/terminal.ts",
  ]);
  const raw = MODULES.filter(({ code }) => /\b(writeResult|writeOutput|writeErrorOutput)\(/.test(code)).map(
    ({ name }) => name,
  );
  expect(raw).toEqual([
    "cli/context.ts",
    "cli/start.ts",
    "guest/console-log.ts",
    "guest/console.ts",
    "guest/exec.ts",
    "host/top/top.ts",
    "job/output.ts",
    "process/stdout.ts",
    "process/terminal.ts",
    "snapshot/transfer/output.ts",
    "vm/events.ts",
  ]);
  const json = MODULES.filter(({ code }) => /\bprint\([^;]*JSON\.stringify/.test(code)).map(
    ({ name }) => name,
  );
  expect(json).toEqual([]);
});
