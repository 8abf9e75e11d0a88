import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";

const PREPARE = readFileSync(join(import.meta.dir, "../../scripts/rescue/prepare.sh"), "utf8");
const AWAIT = /^await_errand\(\) \{\n.*?^\}\n/ms.exec(PREPARE)![0];

test("await_errand gets a line whose first part a read took that was timed out, as when an errand sets the clock", async () => {
  const script = `set -u
${AWAIT}
exec {DONE}<> <(:)
{ echo another; printf 'date -s'; sleep 1.3; echo ' @1'; sleep 9; } >&"$DONE" &
SERVANT=$!
await_errand date -s @1
echo done
kill "$SERVANT"`;
  const child = Bun.spawn(["timeout", "6", "bash", "-c", script], { stdout: "pipe", stderr: "inherit" });
  expect(await child.stdout.text()).toBe("done\n");
}, 20_000);
