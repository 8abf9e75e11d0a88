import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { dependencies, devDependencies, version } from "../../package.json";
import { buildSbom, parseLinked, parseLock, readMaterials, type Lock } from "../../scripts/lib/sbom.ts";

const INTEGRITY = `sha512-${Buffer.alloc(64, 7).toString("base64")}`;
const lock: Lock = {
  packages: {
    a: ["a@1.0.0", "", { dependencies: { "@s/b": "^2" } }, INTEGRITY],
    "@s/b": ["@s/b@2.1.0", "", {}, INTEGRITY],
    unused: ["unused@9.0.0", "", {}, INTEGRITY],
    bun: ["bun@3.0.0", "", {}, INTEGRITY],
    "@oven/bun-linux-x64": ["@oven/bun-linux-x64@3.0.0", "", {}, INTEGRITY],
    "@oven/bun-linux-x64-android": ["@oven/bun-linux-x64-android@3.0.0", "", {}, INTEGRITY],
    "@oven/bun-darwin-x64": ["@oven/bun-darwin-x64@3.0.0", "", {}, INTEGRITY],
  },
};
const bunLicense = `Bun statically links JavaScriptCore (and WebKit) which is LGPL-2 licensed.
| Library | License |
|---------|---------|
| [\`one\`](https://one.example) | MIT licensed |
| [\`two\`](https://two.example) 72 | [several](https://two.example/LICENSE) |
| [\`three\`](https://three.example) (on Windows) | MIT |
`;
const materials = {
  version: "0.0.1",
  epoch: 86400,
  dependencies: { a: "1.0.0" },
  lock,
  licenseOf: () => "MIT",
  bunLicense,
};

interface Bill {
  metadata: { timestamp: string };
  components: {
    name: string;
    version?: string;
    purl: string;
    hashes: { content: string }[];
    components?: { name: string }[];
  }[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

describe("the bill of materials", () => {
  const bill = buildSbom(materials) as Bill;

  test("lists direct and indirect dependencies, and bun; no development dependencies", () => {
    expect(bill.components.map(({ purl }) => purl)).toEqual([
      "pkg:npm/%40s/b@2.1.0",
      "pkg:npm/a@1.0.0",
      "pkg:npm/bun@3.0.0",
    ]);
    expect(bill.dependencies.slice(1)).toEqual([
      { ref: "pkg:npm/%40s/b@2.1.0", dependsOn: [] },
      { ref: "pkg:npm/a@1.0.0", dependsOn: ["pkg:npm/%40s/b@2.1.0"] },
    ]);
  });

  test("converts the lock's hash to hexadecimal", () => {
    expect(bill.components[0]!.hashes).toEqual([{ alg: "SHA-512", content: "07".repeat(64) }] as never);
  });

  test("lists bun's parts: its binaries for Linux, and linked libraries", () => {
    expect(bill.components.at(-1)!.components!.map(({ name }) => name)).toEqual([
      "@oven/bun-linux-x64",
      "JavaScriptCore (and WebKit)",
      "one",
      "two 72",
    ]);
  });

  test("has the time of the sources", () => {
    expect(bill.metadata.timestamp).toBe("1970-01-02T00:00:00Z");
  });

  test("a package missing from bun.lock is an error", () => {
    expect(() => buildSbom({ ...materials, dependencies: { gone: "1" } })).toThrow("gone");
  });
});

test("copies licences from Bun's own text", () => {
  expect(parseLinked(bunLicense).map(({ licenses }) => licenses![0]!.license)).toEqual([
    { name: "LGPL-2" },
    { id: "MIT" },
    { name: "several", url: "https://two.example/LICENSE" },
  ]);
});

test("accepts trailing commas in the lock", () => {
  expect(parseLock('{ "packages": { "a": ["a@1", "", {}, "x",], }, }')).toEqual({
    packages: { a: ["a@1", "", {}, "x"] },
  });
});

test("of this program: every dependency, in its locked version", () => {
  const bill = buildSbom(readMaterials(join(import.meta.dir, "../.."), 0)) as Bill;
  const named = bill.components.map((component) => [component.name, component.version]);
  expect(named).toEqual([...Object.entries(dependencies).toSorted(), ["bun", devDependencies.bun]]);
  expect(JSON.stringify(bill)).toContain(`"name":"vm","version":"${version}"`);
  // Roughly as many as in Bun's licence: its tables were parsed.
  expect(bill.components.at(-1)!.components!.length).toBeGreaterThan(40);
});
