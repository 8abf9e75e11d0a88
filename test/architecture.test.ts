/** Holds what DESIGN.md says of the tree: who may import whom, who owns which package, what stands where. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "..");
const SRC = join(ROOT, "src");

interface Module {
  /** Below src: `qemu/argv.ts`. */
  name: string;
  text: string;
  /** Without comments and the text within quotes. */
  code: string;
  /** Modules of ours, below src. */
  own: string[];
  /** Packages and `node:` modules, as written. */
  foreign: string[];
}

function readModule(name: string): Module {
  const text = readFileSync(join(SRC, name), "utf8");
  const specifiers = [
    ...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"/gm),
    ...text.matchAll(/^import\s+"([^"]+)"/gm),
    ...text.matchAll(/\bimport\(\s*"([^"]+)"\s*\)/g),
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
 * The layers, lowest first; a module may import from its own and from lower ones. The first pattern that
 * fits counts. A new directory must be put in its place here.
 */
const LAYERS: [layer: string, modules: RegExp][] = [
  ["lib", /^lib\//],
  [
    "pure",
    /^(machine|qemu\/devices)\/|^config\/(?!bash|load|trust)|^qemu\/(argv|capabilities|plug|script|text)\.ts$|^qmp\/protocol\.ts$/,
  ],
  ["process", /^process\//],
  ["effects", /^(config|qemu|qmp|store|rescue)\//],
  ["services", /^services\//],
  ["commands", /^commands\//],
  ["cli", /^cli\//],
  ["main", /^main\.ts$/],
];

const layerOf = (name: string): number => LAYERS.findIndex(([, modules]) => modules.test(name));
const inLayer = (layer: string): Module[] =>
  MODULES.filter(({ name }) => LAYERS[layerOf(name)]?.[0] === layer);

/** Functions over their arguments, though they stand in layers that may do more. */
const ALSO_PURE = [
  "cli/argv.ts",
  "cli/batch.ts",
  "cli/colours.ts",
  "cli/complete/line.ts",
  "cli/complete/place.ts",
  "cli/complete/values.ts",
  "cli/getopt.ts",
  "cli/invocation.ts",
  "cli/manual/page.ts",
  "cli/manual/prose.ts",
  "cli/manual/roff.ts",
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
  "store/guest-env.ts",
  "store/layout.ts",
  "store/manifest.ts",
  "store/retention.ts",
];

const PURE = [...inLayer("pure"), ...MODULES.filter(({ name }) => ALSO_PURE.includes(name))];

test("the scan sees imports", () => {
  expect(readModule("cli/cli.ts").own).toContain("services/open.ts");
  expect(readModule("cli/check.ts").foreign).toContain("citty");
  expect(readModule("commands/run.ts").own).toContain("services/run.ts");
  expect(MODULES.length).toBeGreaterThan(50);
});

test("every module has its place in a layer", () => {
  expect(MODULES.filter(({ name }) => layerOf(name) < 0).map(({ name }) => name)).toEqual([]);
});

test("all that is called pure is there", () => {
  const known = new Set(MODULES.map(({ name }) => name));
  expect(ALSO_PURE.filter((name) => !known.has(name))).toEqual([]);
});

describe("dependencies point one way:", () => {
  test.each(MODULES.map((module) => [module.name, module] as const))("%s", (name, { own }) => {
    const upwards = own.filter((target) => target.endsWith(".ts") && layerOf(target) > layerOf(name));
    expect(upwards).toEqual([]);
    // Outside of src: package.json, for the version and its date, and the files that the program carries.
    const outside = own.filter((target) => target.startsWith(".."));
    const allowed: Record<string, RegExp> = {
      "cli/licenses.ts": /^\.\.\/(LICENSE|package\.json|node_modules\/[^.]+|scripts\/licenses\/.+)$/,
      "main.ts": /^\.\.\/package\.json$/,
      "cli/manual/page.ts": /^\.\.\/package\.json$/,
      "rescue/assets.ts": /^\.\.\/(jobs|scripts\/rescue)\//,
    };
    expect(outside.filter((target) => !allowed[name]?.test(target))).toEqual([]);
  });
});

test("no module imports itself by way of others", () => {
  const graph = new Map(
    // Types alone make no cycle.
    MODULES.map(({ name, text }) => {
      const values = text.replaceAll(/^(import|export) type\b[^;]*;/gm, "");
      const targets = [...values.matchAll(/\bfrom\s+"(\.[^"]+)"/g)];
      return [name, targets.map(([, word]) => relative(SRC, resolve(SRC, dirname(name), word!)))] as const;
    }),
  );
  const done = new Set<string>();
  const visit = (name: string, path: string[]): void => {
    if (path.includes(name)) throw new Error([...path.slice(path.indexOf(name)), name].join(" → "));
    if (done.has(name)) return;
    for (const target of graph.get(name) ?? []) visit(target, [...path, name]);
    done.add(name);
  };
  for (const name of graph.keys()) visit(name, []);
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
    ["bun:ffi", /^process\/libc\.ts$/],
    ["node:child_process", /^process\/exec\.ts$/],
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

test("commands have a default export, everything else named ones", () => {
  const defaults = MODULES.filter(({ code }) => /^export default\b/m.test(code)).map(({ name }) => name);
  expect(defaults).toEqual(inLayer("commands").map(({ name }) => name));
});

test("architectures are told apart in their table only", () => {
  const others = MODULES.filter(({ name }) => !/^machine\/(arch|types)\.ts$/.test(name));
  const asked = others.filter(({ text }) => /[!=]==? "(x86_64|i386|aarch64)"/.test(text));
  expect(asked.map(({ name }) => name)).toEqual([]);
});

test("only agreed names stand at the top", () => {
  const listed = Bun.spawnSync(["git", "ls-files", "-z"], { cwd: ROOT });
  if (listed.exitCode !== 0) return; // A checkout without git: an archive.
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

/** What may come from a guest, an image, a repository or a directory passes one of these on its way to a terminal. */
test("programs of the user, not of vm, are started as such: hooks, check-media, viewers, ssh, pagers, notifiers", () => {
  const starters = MODULES.filter(({ text }) => /\brunAs: "user"/.test(text)).map(({ name }) => name);
  expect(starters).toEqual([
    "config/bash.ts",
    "rescue/hooks.ts",
    "services/manual.ts",
    "services/media.ts",
    "services/notify.ts",
    "services/ssh.ts",
    "services/view.ts",
    "services/viewer.ts",
  ]);
});

test("the standard streams are written in few places", () => {
  const writers = MODULES.filter(({ code }) =>
    /\b(console\s*\.|Bun\.(stdout|stderr)\b|process\.(stdout|stderr)\s*\.\s*write\b|\b(writeSync|appendFileSync)\(\s*[12]\b)/.test(
      code,
    ),
  ).map(({ name }) => name);
  expect(writers).toEqual([
    "cli/progress.ts",
    "config/bash.ts",
    "lib/log.ts",
    "process/stdout.ts",
    "process/terminal.ts",
  ]);
  const raw = MODULES.filter(({ code }) => /\b(writeResult|writeOutput|writeErrorOutput)\(/.test(code)).map(
    ({ name }) => name,
  );
  expect(raw).toEqual([
    "cli/surroundings.ts",
    "main.ts",
    "process/stdout.ts",
    "process/terminal.ts",
    "services/console-log.ts",
    "services/console.ts",
    "services/exec.ts",
    "services/job-output.ts",
  ]);
  const json = MODULES.filter(({ code }) => /\bprint\([^;]*JSON\.stringify/.test(code)).map(
    ({ name }) => name,
  );
  expect(json).toEqual([]);
});
