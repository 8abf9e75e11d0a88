import { expect, test } from "bun:test";
import { join } from "node:path";
import { callerUmask, underCallerUmask } from "../../src/process/umask.ts";

const SRC = join(import.meta.dir, "../../src/process");

test("tools run with umask 077 and the C locale; the user's programs with the caller's umask, locale and environment", () => {
  const script = `
import { exec } from ${JSON.stringify(join(SRC, "exec.ts"))};
import { callerUmask, takeUmask } from ${JSON.stringify(join(SRC, "umask.ts"))};
takeUmask();
const argv = ["sh", "-c", 'printf "%s %s" "$(umask)" "$LC_ALL"'];
for (const runAs of ["tool", "user"] as const) console.log((await exec(argv, { runAs })).stdout);
console.log(process.umask().toString(8), callerUmask().toString(8));
`;
  const argv = ["sh", "-c", 'umask 027; exec "$0" -e "$1"', process.execPath, script];
  const env = { ...process.env, LC_ALL: "ru_RU.UTF-8" };
  const { stdout } = Bun.spawnSync(argv, { env, stderr: "inherit" });
  expect(stdout.toString()).toBe("0077 C\n0027 ru_RU.UTF-8\n77 27\n");
});

test("work under the caller's umask leaves this program's, even if it fails", () => {
  const own = process.umask();
  expect(underCallerUmask(() => process.umask())).toBe(callerUmask());
  expect(() =>
    underCallerUmask(() => {
      process.umask(0);
      throw new Error("halfway");
    }),
  ).toThrow("halfway");
  expect(process.umask()).toBe(own);
});
