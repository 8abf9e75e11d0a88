/** Small working files that a command reads whole: of another kind, or huge, they are refused. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Sandbox } from "../fixtures/sandbox.ts";

/** A UEFI VM with a firmware of the user's own: a volume without variables. */
async function withVariables(): Promise<Sandbox> {
  const box = new Sandbox();
  const volume = Buffer.alloc(4096);
  volume.writeBigUInt64LE(4096n, 32);
  volume.write("_FVH", 40);
  const [code, vars] = ["code", "vars"].map((name) => box.write(join(box.top, name), volume));
  box.configure(`OVMF_CODE=${code}\nOVMF_VARS=${vars}\n`);
  await box.ok("--uefi", "create", "G");
  return box;
}

/** Makes something other than a regular file. */
const KINDS: readonly [string, (path: string) => unknown, string][] = [
  ["a directory", (path) => mkdirSync(path), "it is a directory, not a regular file"],
  ["a named pipe", (path) => Bun.spawnSync(["mkfifo", path]), "it is a named pipe, not a regular file"],
  ["a symlink", (path) => symlinkSync("/etc/passwd", path), "it is a symbolic link, not a regular file"],
  [
    "a socket",
    (path) =>
      // The path may be too long for an address.
      Bun.spawnSync(
        ["perl", "-MSocket", "-e", 'socket S, AF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un("efivars.bin")'],
        { cwd: dirname(path) },
      ),
    "it is a socket, not a regular file",
  ],
];

describe("UEFI variables", () => {
  test.each(KINDS)(
    "that are %s: backup and run refuse it, with a hint that helps",
    async (_kind, make, said) => {
      using box = await withVariables();
      const path = join(box.work, "efivars.bin");
      rmSync(path);
      make(path);
      await box.ends(74, "backup", path, said, `mv ${path} ${path}.old`);
      const { stderr } = await box.ends(74, "run --detach", path, said);
      expect(box.qemus).toEqual([]);
      const hint = /(mv \S+efivars\.bin \S+)$/m.exec(stderr)![1]!;
      expect(Bun.spawnSync(["sh", "-c", hint]).exitCode).toBe(0);
      await box.ok("run", "--detach");
    },
  );

  test("of 10 GiB: backup and run refuse them at once, and restore does so with a snapshot of them", async () => {
    using box = await withVariables();
    await box.ok("backup");
    const path = join(box.work, "efivars.bin");
    truncateSync(path, 10 * 2 ** 30);
    await box.ends(74, "backup", `cannot back up ${path}`, "it is larger than 256 MiB");
    expect(existsSync(box.path("backups/S1"))).toBe(false);
    await box.ends(74, "run --detach", "it is larger than 256 MiB", `mv ${path} ${path}.old`);
    expect(box.qemus).toEqual([]);
    await box.ok("restore");
  });
});

test.each<[string, (path: string) => unknown, string]>([
  ["of 10 GiB", (path) => truncateSync(path, 10 * 2 ** 30), "it is larger than 64 MiB"],
  ...KINDS.slice(0, 2),
])("a volume for cloud-init %s: backup refuses it", async (_kind, make, said) => {
  using box = new Sandbox();
  await box.ok("create", "G");
  const path = join(box.work, "vm-seed.img");
  if (said.includes("larger")) writeFileSync(path, "");
  make(path);
  await box.ends(74, "backup", `cannot back up ${path}`, said, `mv ${path} ${path}.old`);
});
