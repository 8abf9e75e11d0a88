import { chmodSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import { exec } from "../../src/process/exec.ts";
import { findJob, listJobs, validateJobName } from "../../src/rescue/find-job.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

function places(temp: Temp): Parameters<typeof findJob>[1] {
  return {
    hostdir: temp.directory("host"),
    profiles: temp.directory("profiles"),
    libexec: temp.directory("libexec"),
  };
}

describe("a job is found", () => {
  test.each<
    [name: string, files: string[], found: string, pre: string | undefined, post: string | undefined]
  >([
    ["x", ["host/x.job"], "host/x.job", undefined, undefined],
    ["x", ["host/x.job", "host/x.pre", "host/x.post"], "host/x.job", "host/x.pre", "host/x.post"],
    ["x", ["host/x.job", "libexec/jobs/x.job", "libexec/jobs/x.pre"], "host/x.job", undefined, undefined],
    [
      "x",
      ["profiles/scripts/jobs/x.job", "libexec/jobs/x.job"],
      "profiles/scripts/jobs/x.job",
      undefined,
      undefined,
    ],
    [
      "run-ssh",
      ["profiles/scripts/jobs/run-ssh.job", "libexec/jobs/run-ssh.job"],
      "libexec/jobs/run-ssh.job",
      undefined,
      undefined,
    ],
    [
      "post-install",
      ["host/post-install.pre", "libexec/jobs/post-install.job", "libexec/jobs/post-install.pre"],
      "libexec/jobs/post-install.job",
      "libexec/jobs/post-install.pre",
      undefined,
    ],
    ["два слова", ["host/два слова.job"], "host/два слова.job", undefined, undefined],
  ])("%s among %j", (name, files, found, pre, post) => {
    using temp = new Temp();
    const at = places(temp);
    for (const file of files) temp.write(file, "true\n");
    const job = findJob(name, at);
    const whole = (path: string | undefined): string | undefined => path && temp.path(path);
    expect(job).toEqual({ name, script: temp.path(found), pre: whole(pre), post: whole(post) });
  });
});

test("none: 66, with the directories", async () => {
  using temp = new Temp();
  const at = places(temp);
  const failure = await failureOf(() => findJob("x", at));
  expect(failure.exitCode).toBe(66);
  expect(failure.hint).toContain(temp.path("profiles/scripts/jobs"));
});

test.each(["x.job", "x.pre", "x.post"])("refuses %s that others can write (78)", async (name) => {
  using temp = new Temp();
  const at = places(temp);
  for (const file of ["x.job", "x.pre", "x.post"]) temp.write(`host/${file}`, "true\n");
  chmodSync(temp.path("host", name), 0o622);
  const failure = await failureOf(() => findJob("x", at));
  expect(failure.exitCode).toBe(78);
  expect(failure.message).toContain(name);
});

/** As a user with a private group and umask 002, with a user database of the test. */
const AS_USER = String.raw`
cd "$1" && printf 'root:x:0:0::/:
me:x:4321:4321::/:
other:x:4322:4322::/:
' >passwd && printf 'root:x:0:
me:x:4321:%s
' "$3" >group
mount --make-rprivate / && mount --bind passwd /etc/passwd && mount --bind group /etc/group || exit 99
chown -R 4321:4321 host && chmod -R g+w host && chmod a+rx . && chmod a+r find.ts passwd group
exec setpriv --reuid 4321 --regid 4321 --clear-groups "$2" find.ts`;

test.skipIf(process.getuid!() !== 0).each([
  ["the user's own private group: found", "", "x.job x.pre\n"],
  ["a group with another member: 78", "other", "78\n"],
])("jobs and directories that a group can write (needs root): %s", async (_title, members, expected) => {
  using temp = new Temp();
  for (const name of ["x.job", "x.pre"]) temp.write(`host/${name}`, "true\n");
  temp.write(
    "find.ts",
    `import { findJob } from ${JSON.stringify(join(import.meta.dir, "../../src/rescue/find-job.ts"))};
import { basename } from "node:path";
try {
  const { script, pre } = findJob("x", { hostdir: ${JSON.stringify(temp.path("host"))}, profiles: "/nowhere", libexec: "/nowhere" });
  console.log(basename(script), basename(pre!));
} catch (error) {
  console.log((error as { exitCode: number }).exitCode);
}`,
  );
  const argv = ["unshare", "-m", "sh", "-c", AS_USER, "sh", temp.top, process.execPath, members];
  const { stdout } = await exec(argv);
  expect(stdout).toBe(expected);
});

test("suggests a similar name", async () => {
  using temp = new Temp();
  const at = places(temp);
  temp.write("host/prepare.job", "true\n");
  expect((await failureOf(() => findJob("prepair", at))).hint).toStartWith(
    "did you mean: vm job prepare\nput prepair.job in",
  );
  expect((await failureOf(() => findJob("add-ssh-key", at))).hint).toStartWith(
    "did you mean: vm job add-ssh-keys\n",
  );
});

test("listJobs: the first of a name; ignores old copies of the bundled ones", () => {
  using temp = new Temp();
  const at = places(temp);
  for (const file of [
    "host/x.job",
    "host/.y.job",
    "profiles/scripts/jobs/x.job",
    "profiles/scripts/jobs/z.job",
  ])
    temp.write(file, "");
  temp.write("profiles/scripts/jobs/run-ssh.job", "");
  const listed = listJobs(at).map(({ name, place }) => `${name}: ${place}`);
  expect(listed).toEqual([
    "x: this VM's own",
    "z: yours, for all VMs",
    "add-ssh-keys: bundled",
    "run-ssh: bundled",
    "post-install: bundled",
    "grow-fs: bundled",
    "new-identity: bundled",
  ]);
});

test.each(["", ".", "..", "../x", "a/b", "/x", ".x", "-x", "a\nb", "x".repeat(300)])(
  "invalid name: %j",
  async (name) => {
    expect((await failureOf(() => validateJobName(name))).exitCode).toBe(64);
  },
);

test.each(["x", "add-ssh-keys", "a b", "x.y", "ёлка"])("valid name: %j", (name) => {
  expect(() => validateJobName(name)).not.toThrow();
});
