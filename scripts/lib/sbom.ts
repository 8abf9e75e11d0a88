/** Prints the bill of materials of a release: CycloneDX 1.5, the same bytes for the same sources. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Entries of bun.lock, as far as they are read: `[NAME@VERSION, REGISTRY, INFO, INTEGRITY]`. */
export interface Lock {
  packages: Record<string, [string, string, { dependencies?: Record<string, string>; os?: string }, string]>;
}

export interface Materials {
  version: string;
  /** Seconds since 1970, as SOURCE_DATE_EPOCH has them. */
  epoch: number;
  dependencies: Record<string, string>;
  lock: Lock;
  /** The licence that a package's own package.json names. */
  licenseOf(name: string): string;
  /** scripts/licenses/bun.txt. */
  bunLicense: string;
}

interface Component {
  type: "application" | "library";
  "bom-ref"?: string;
  name: string;
  version?: string;
  purl?: string;
  licenses?: { license: { id: string } | { name: string; url?: string } }[];
  hashes?: { alg: string; content: string }[];
  externalReferences?: { type: string; url: string }[];
  components?: Component[];
}

/** What Bun's LICENSE.md calls them, in the words of SPDX; all others keep the name they have there. */
const SPDX: Readonly<Record<string, string>> = {
  "Apache 2.0": "Apache-2.0",
  "Apache 2.0 licensed": "Apache-2.0",
  "Apache 2.0 with LLVM exception": "Apache-2.0 WITH LLVM-exception",
  "BSD 2-Clause": "BSD-2-Clause",
  "BSD 3-Clause": "BSD-3-Clause",
  "LGPL v2.1": "LGPL-2.1-only",
  MIT: "MIT",
  "MIT licensed": "MIT",
  zlib: "Zlib",
};

/** The one that is no id of a licence, but an expression. */
const isId = (text: string): boolean => !text.includes(" ");

/** A cell of the tables there: text, and the first address linked in it. */
function parseCell(cell: string): { text: string; url: string | undefined } {
  return {
    text: cell
      .replaceAll(/\[(.*?)\]\(\S+?\)/g, "$1")
      .replaceAll("`", "")
      .trim(),
    url: /\]\((\S+?)\)/.exec(cell)?.[1],
  };
}

/** What Bun's LICENSE.md says is linked or embedded; not what is only on another system. */
export function parseLinked(markdown: string): Component[] {
  const rows = [...markdown.matchAll(/^\| (.+?) \| (.+) \|$/gm)].map((row) => [row[1]!, row[2]!] as const);
  const listed = rows
    .filter(([library]) => !/^(Library|Package)$|\(on Windows\)/.test(library))
    .map(([library, license]): Component => {
      const { text: name, url } = parseCell(library);
      const { text, url: textUrl } = parseCell(license);
      const id = SPDX[text];
      return {
        type: "library",
        name,
        licenses: [
          {
            license:
              id !== undefined && isId(id)
                ? { id }
                : { name: id ?? text, ...(textUrl !== undefined && { url: textUrl }) },
          },
        ],
        ...(url !== undefined && { externalReferences: [{ type: "website", url }] }),
      };
    });
  const webkit = /statically links (JavaScriptCore \(and WebKit\)) which is (LGPL-2) licensed/.exec(markdown);
  if (!webkit) throw new Error("bun.txt has no entry for JavaScriptCore");
  return [{ type: "library", name: webkit[1]!, licenses: [{ license: { name: webkit[2]! } }] }, ...listed];
}

/** The npm package's archive, as bun.lock knows it. */
const hashesOf = (integrity: string): NonNullable<Component["hashes"]> => [
  { alg: "SHA-512", content: Buffer.from(integrity.replace(/^sha512-/, ""), "base64").toString("hex") },
];

function npmComponent(name: string, { lock, licenseOf }: Materials): Component {
  const entry = lock.packages[name];
  if (!entry) throw new Error(`bun.lock does not know ${name}`);
  const [id, , , integrity] = entry;
  const version = id.slice(name.length + 1);
  const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
  return {
    type: "library",
    "bom-ref": purl,
    name,
    version,
    purl,
    licenses: [{ license: { id: licenseOf(name) } }],
    hashes: hashesOf(integrity),
  };
}

/** A dependency and what it depends on. */
function withDependencies(names: readonly string[], lock: Lock, found = new Set<string>()): string[] {
  for (const name of names) {
    if (found.has(name)) continue;
    found.add(name);
    withDependencies(Object.keys(lock.packages[name]?.[2].dependencies ?? {}), lock, found);
  }
  return [...found].toSorted();
}

export function buildSbom(materials: Materials): unknown {
  const { version, epoch, dependencies, lock, bunLicense } = materials;
  const packages = withDependencies(Object.keys(dependencies), lock).map((name) =>
    npmComponent(name, materials),
  );
  const runtimes = Object.keys(lock.packages)
    .filter((name) => /^@oven\/bun-linux-(x64|aarch64)(-musl)?$/.test(name))
    .toSorted()
    .map((name) => npmComponent(name, { ...materials, licenseOf: () => "MIT" }));
  const bun: Component = {
    ...npmComponent("bun", { ...materials, licenseOf: () => "MIT" }),
    type: "application",
    components: [...runtimes, ...parseLinked(bunLicense)],
  };
  const vm = `vm@${version}`;
  return {
    $schema: "http://cyclonedx.org/schema/bom-1.5.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: new Date(epoch * 1000).toISOString().replace(".000", ""),
      component: {
        type: "application",
        "bom-ref": vm,
        name: "vm",
        version,
        licenses: [{ license: { id: "GPL-3.0-or-later" } }],
      },
    },
    components: [...packages, bun],
    dependencies: [
      { ref: vm, dependsOn: [...packages, bun].map((component) => component["bom-ref"]) },
      ...packages.map(({ name, "bom-ref": ref }) => ({
        ref,
        dependsOn: Object.keys(lock.packages[name]![2].dependencies ?? {}).map(
          (each) => npmComponent(each, materials)["bom-ref"],
        ),
      })),
    ],
  };
}

/** bun.lock is JSON with commas behind last items. */
export const parseLock = (text: string): Lock => JSON.parse(text.replaceAll(/,(\s*[\]}])/g, "$1")) as Lock;

export function readMaterials(root: string, epoch: number): Materials {
  const read = (...parts: string[]): string => readFileSync(join(root, ...parts), "utf8");
  const { version, dependencies } = JSON.parse(read("package.json")) as Materials;
  return {
    version,
    epoch,
    dependencies,
    lock: parseLock(read("bun.lock")),
    licenseOf: (name) =>
      (JSON.parse(read("node_modules", name, "package.json")) as { license: string }).license,
    bunLicense: read("scripts/licenses/bun.txt"),
  };
}

if (import.meta.main) {
  const root = join(import.meta.dir, "../..");
  const sbom = buildSbom(readMaterials(root, Number(process.env.SOURCE_DATE_EPOCH)));
  process.stdout.write(`${JSON.stringify(sbom, null, 2)}\n`);
}
