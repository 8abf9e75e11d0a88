/** A result that cannot be written is an error; a slow reader, or one that closes the pipe, is not. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { binary, Sandbox } from "./harness.ts";
import { shell, suite } from "./tools.ts";

/** Each prints a result of its own. */
const COMMANDS = [
  "--version",
  "--licenses",
  "--help",
  "backup --help",
  "status",
  "status --json",
  "list",
  "snapshots",
  "snapshots show S0",
  "snapshots diff S0 S0",
  "verify",
  "prune --keep-last=1 --dry-run",
  "config",
  "config --example",
  "completion bash",
  "__complete bash 'vm '",
  "man",
  "timer --cron",
  "self-check",
  "doctor --json",
];

suite("stdout", () => {
  let box: Sandbox;
  beforeAll(async () => {
    box = new Sandbox();
    await box.ok(["-p", "", "-D", "VIRT=1M", "@create", "G", "@backup"]);
  });
  afterAll(() => box?.[Symbol.dispose]());

  const run = (line: string): Promise<string> =>
    shell(`cd vm1; export HOME=$PWD/../home TMPDIR=$PWD/../tmp; ${line}`, box.top);

  test.each(COMMANDS)("%s >/dev/full fails with 74", async (command) => {
    const said = await run(`'${binary}' ${command} 2>&1 >/dev/full || echo "= $?"`);
    expect(said).toMatch(/cannot write the result: no space left on device\n(?:.*\n)*= 74\n$/);
  });

  test.each(["--version", "status --json", "verify"])("%s >&- fails with 74", async (command) => {
    const said = await run(`'${binary}' ${command} 2>&1 >&- || echo "= $?"`);
    expect(said).toMatch(/cannot write the result: stdout is closed\n(?:.*\n)*= 74\n$/);
    expect(await run(`'${binary}' ${command} 2>&1 >/dev/null && echo done`)).toEndWith("done\n");
  });

  test.each(["--licenses", "man", "completion bash", "status"])(
    "%s | a closed reader: no error message",
    async (command) => {
      const said = await run(`{ sleep 0.1; '${binary}' ${command} 2>&1 >&3; echo "= $?"; } 3> >(exec true)`);
      expect(said).toMatch(/^(\*\*\* .*\n)?= 0\n$/);
    },
  );

  test("a slow reader of a non-blocking pipe gets everything", async () => {
    const count = await run(
      `python3 -c 'import os, subprocess, time
r, w = os.pipe(); os.set_blocking(w, False)
child = subprocess.Popen(["${binary}", "--licenses"], stdout=w); os.close(w); time.sleep(0.5)
print(sum(len(piece) for piece in iter(lambda: os.read(r, 5000), b"")), child.wait())'; '${binary}' --licenses | wc -c`,
    );
    const [slow, status, fast] = count.split(/\s+/);
    expect(slow).toBe(fast!);
    expect(status).toBe("0");
    expect(Number(slow)).toBeGreaterThan(100_000);
  });
});
