/** A sample of `scripts/prove`: quick parts, on systems that take only minutes. */
import { expect, test } from "bun:test";
import { binary, checkout, Sandbox } from "./harness.ts";
import { isRoot, isTurn, suite } from "./tools.ts";

/** Systems with the number of lines of each; the last one takes a minute. */
const SAMPLE: Record<string, number> = { empty: 8, musl: 2, ...(isTurn(7, 8) ? { "arm64-program": 4 } : {}) };

async function prove(...args: string[]): Promise<{ status: number; lines: string[] }> {
  using box = new Sandbox();
  // Without upgrades from an earlier release.
  const { exitCode, stdout, stderr } = await Bun.$`${checkout}/scripts/prove --from=${box.top} ${args}`
    .env({ ...process.env, VM_BINARY: binary, TMPDIR: box.tmp })
    .nothrow()
    .quiet();
  return { status: exitCode, lines: `${stdout}${stderr}`.trimEnd().split("\n") };
}

suite(
  "scripts/prove",
  () => {
    test("an invalid name or option", async () => {
      expect((await prove("--only=nowhere")).status).toBe(64);
      expect((await prove("--quick")).status).toBe(64);
      expect(await prove("-h")).toMatchObject({ status: 0 });
    });

    const title = Object.keys(SAMPLE).join(", ");
    if (!isRoot && process.env.CI !== "true") test.skip(`${title} (only root can)`, () => {});
    else
      test(title, async () => {
        const { status, lines } = await prove(`--only=${Object.keys(SAMPLE).join(",")}`);
        const told = lines.join("\n");
        for (const [name, count] of Object.entries(SAMPLE))
          expect(lines.filter((line) => line.startsWith(`ok ${name} `)).length, told).toBe(count);
        const all = Object.values(SAMPLE).reduce((sum, count) => sum + count, 0);
        expect(lines, told).toContain(`${all} passed, 0 failed`);
        expect(status, told).toBe(0);
      });
  },
  ["ldd", "mmdebstrap", "qemu-aarch64-static", "readelf", "unshare"],
);
