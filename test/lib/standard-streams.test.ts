import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Temp } from "../fixtures/temp.ts";

const MODULE = JSON.stringify(join(import.meta.dir, "../../src/lib/standard-streams.ts"));

/** Runs a shell line in which `$WRITE` is a program of the test; `script` sees `writeTo` and `writeError`. */
async function run(line: string, script: string): Promise<string> {
  const program = `import { writeError, writeTo } from ${MODULE};\n${script}`;
  const env = { ...process.env, BUN: process.execPath, PROGRAM: program };
  const child = Bun.spawn(["bash", "-c", `write() { "$BUN" -e "$PROGRAM"; }; ${line}`], {
    env,
    stdout: "pipe",
    stderr: "inherit",
  });
  const text = await new Response(child.stdout).text();
  await child.exited;
  return text;
}

/** More than a pipe's capacity. */
const MUCH = 300_000;

describe("a slow reader of a pipe", () => {
  test("gets everything, in order, and other work is not blocked", async () => {
    using temp = new Temp();
    const script = `
setTimeout(() => require("node:fs").writeFileSync(${JSON.stringify(temp.path("ticked"))}, ""), 20);
void writeTo(1, "a".repeat(${MUCH}));
void writeTo(1, "b");`;
    // It reads nothing before the timer has fired, or for 10 s.
    const patient = `for i in {1..1000}; do [ ! -e '${temp.path("ticked")}' ] || break; sleep 0.01; done`;
    expect(await run(`write | { ${patient}; echo $((i < 1000)); tail -c 2; }`, script)).toBe("1\nab");
  });

  test("is waited for", async () => {
    const script = `console.error(await writeTo(1, "a".repeat(${MUCH})), await writeTo(1, "b"));`;
    expect(await run("{ write 2>&3 | { sleep 0.3; wc -c; }; } 3>&1", script)).toBe(
      `true true\n${MUCH + 1}\n`,
    );
  });

  test("keeps its pipe's flags: O_NONBLOCK would affect its other writers, too", async () => {
    const flags = await run("{ write; grep ^flags: /proc/self/fdinfo/1; } | cat", `writeTo(1, "x\\n");`);
    const [, text, number] = /^(x)\nflags:\s+([0-7]+)\n$/.exec(flags) ?? [];
    expect(text).toBe("x");
    expect(Number.parseInt(number!, 8) & 0o4000).toBe(0);
  });
});

test("a closed reader is reported, not thrown", async () => {
  const script = `console.error(await writeTo(1, "x"), await writeTo(1, "y"));`;
  expect(await run("{ { sleep 0.2; write 2>&3; } | true; } 3>&1", script)).toBe("false false\n");
});

test("a reader that closes while it is waited for is reported", async () => {
  const script = `console.error(await writeTo(1, "a".repeat(${MUCH})));`;
  expect(await run("{ write 2>&3 | { read -r -n 1; sleep 0.3; }; } 3>&1", script)).toBe("false\n");
});

test("a full device is an error, even for an empty text; on stderr it is none", async () => {
  const script = `
for (const text of ["x", ""]) try { writeTo(1, text); } catch (error) { console.error(error.code); }
process.exitCode = writeError("lost") === false ? 3 : 4;`;
  expect(await run("write 2>&1 >/dev/full", script)).toBe("ENOSPC\nENOSPC\nlost");
  expect(await run("write >/dev/null 2>/dev/full; echo $?", script)).toBe("3\n");
});

test("a non-blocking pipe gets everything", async () => {
  const line = `python3 -c 'import os, subprocess, sys, time
r, w = os.pipe(); os.set_blocking(w, False)
child = subprocess.Popen(["bash", "-c", "exec \\"$BUN\\" -e \\"$PROGRAM\\""], stdout=w); os.close(w); time.sleep(0.3)
print(sum(len(piece) for piece in iter(lambda: os.read(r, 5000), b"")), child.wait())'`;
  expect(await run(line, `void writeTo(1, "a".repeat(${MUCH}));`)).toBe(`${MUCH} 0\n`);
});
