import { expect, test } from "bun:test";
import { closeSync, copyFileSync, openSync } from "node:fs";
import {
  describeHolder,
  findFileHolder,
  findUsers,
  readArgv,
  runsProcess,
} from "../../src/process/holders.ts";
import { startNamed } from "../fixtures/processes.ts";
import { Temp } from "../fixtures/temp.ts";

test("finds every process of a name that has a file open, or was started in a directory; no others", async () => {
  using temp = new Temp();
  const disk = temp.write("work/disk", "");
  temp.directory("elsewhere");
  const sleep = temp.path("qemu-sleep");
  copyFileSync(Bun.which("sleep")!, sleep);
  const start = (program: string, cwd: string, stdin?: string) =>
    startNamed(program, ["60"], { cwd: temp.path(cwd), stdin: stdin ? Bun.file(stdin) : "ignore" });
  const inDirectory = await start(sleep, "work");
  const withFile = await start(sleep, "elsewhere", disk);
  const others = [
    await start(sleep, "elsewhere"),
    await start("sleep", "work"),
    await start("sleep", "elsewhere", disk),
  ];
  try {
    const found = findUsers(new Set([disk]), temp.path("work"), "qemu");
    expect(found.map(({ pid }) => pid).toSorted()).toEqual([inDirectory.pid, withFile.pid].toSorted());
    expect(found[0]!.name).toBe("qemu-sleep");
    expect(runsProcess(["crond-sleep", "qemu-sleep"])).toBe(true);
    expect(runsProcess(["crond-sleep"])).toBe(false);
  } finally {
    for (const child of [inDirectory, withFile, ...others]) child.kill("SIGKILL");
    await Promise.all([inDirectory, withFile, ...others].map(({ exited }) => exited));
  }
});

test("finds who has a file open, and a process's command line", async () => {
  using temp = new Temp();
  const disk = temp.write("disk", "");
  expect(findFileHolder(new Set([disk]))).toBeUndefined();
  const fd = openSync(disk, "r");
  const holder = findFileHolder(new Set([temp.path("other"), disk]))!;
  closeSync(fd);
  expect(holder.pid).toBe(process.pid);
  expect(describeHolder(holder)).toBe(`${holder.name} (pid ${process.pid})`);
  // Its output shows that the program has replaced the copy of this process, whose list the kernel shows before.
  const child = Bun.spawn(["sh", "-c", "echo; read -r line", "a name"], { stdin: "pipe", stdout: "pipe" });
  await child.stdout.getReader().read();
  expect(readArgv(child.pid)).toEqual(["sh", "-c", "echo; read -r line", "a name"]);
  child.kill();
  await child.exited;
  expect(readArgv(2 ** 30)).toEqual([]);
});
