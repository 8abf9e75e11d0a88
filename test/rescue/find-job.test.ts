import { chmodSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { findJob, validateJobName } from "../../src/rescue/find-job.ts";
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

test("none: 66, and where it was looked for", async () => {
  using temp = new Temp();
  const at = places(temp);
  const failure = await failureOf(() => findJob("x", at));
  expect(failure.exitCode).toBe(66);
  expect(failure.hint).toContain(temp.path("profiles/scripts/jobs"));
});

test.each(["x.job", "x.pre", "x.post"])("%s that others may write is not run: 78", async (name) => {
  using temp = new Temp();
  const at = places(temp);
  for (const file of ["x.job", "x.pre", "x.post"]) temp.write(`host/${file}`, "true\n");
  chmodSync(temp.path("host", name), 0o622);
  const failure = await failureOf(() => findJob("x", at));
  expect(failure.exitCode).toBe(78);
  expect(failure.message).toContain(name);
});

test.each(["", ".", "..", "../x", "a/b", "/x", ".x", "-x", "a\nb", "x".repeat(300)])(
  "no name: %j",
  async (name) => {
    expect((await failureOf(() => validateJobName(name))).exitCode).toBe(64);
  },
);

test.each(["x", "add-ssh-keys", "a b", "x.y", "ёлка"])("a name: %j", (name) => {
  validateJobName(name);
});
