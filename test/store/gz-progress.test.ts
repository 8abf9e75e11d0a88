import { expect, test } from "bun:test";
import { chmodSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { unpackFiles } from "../../src/store/gz.ts";
import { Temp } from "../fixtures/temp.ts";

test("the progress of unpacking does not go back when the reader has ended before the writer", async () => {
  using top = new Temp();
  const from = join(top.top, "a.gz");
  writeFileSync(from, Bun.gzipSync(crypto.getRandomValues(new Uint8Array(60_000))));
  const program = (name: string, script: string): void => {
    writeFileSync(join(top.top, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(top.top, name), 0o755);
  };
  program("pigz", `${Bun.which("pigz")} "$@"; sleep 0.6`);
  program("dd", `${Bun.which("dd")} "$@"; sleep 0.6`);
  const { PATH } = process.env;
  process.env.PATH = `${top.top}:${PATH}`;
  const seen: number[] = [];
  try {
    const job = { name: "a", from, to: join(top.top, "a"), bytes: statSync(from).size };
    await unpackFiles([job], (done) => seen.push(done));
  } finally {
    process.env.PATH = PATH;
  }
  expect(seen.some((done) => done > 0)).toBe(true);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
});
