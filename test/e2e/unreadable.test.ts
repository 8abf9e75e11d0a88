/** Directories that the caller cannot read, or of another user. No guest runs. */
import { afterAll, beforeAll, expect } from "bun:test";
import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, symlinkSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { binary, type Result, type Sandbox } from "./harness.ts";
import { configure, expectError, rootTest, shell, smallSandbox, suite } from "./tools.ts";

const UID = 1234;
const AS_USER = ["setpriv", `--reuid=${UID}`, `--regid=${UID}`, "--clear-groups", binary];

let box: Sandbox;
/** The user's VM `a`, in the user's PROFILES. */
let vm: string;

/** The program as that user. */
const asUser = (args: readonly string[]): Promise<Result> => box.vm(args, { program: AS_USER, cwd: vm });

suite("another user's", () => {
  beforeAll(async () => {
    if (process.getuid!() !== 0) return;
    box = smallSandbox();
    configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=16M)\n");
    vm = join(box.home, "vm/a");
    mkdirSync(vm, { recursive: true });
    await shell(`chown -R ${UID}:${UID} home tmp; chmod 755 .`, box.top);
    for (const words of [["create", "a"], ["backup"]])
      expect(await asUser(words)).toMatchObject({ status: 0 });
  });
  afterAll(() => box?.[Symbol.dispose]());

  rootTest("root gets the owner's name, and no hint to remove anything", async () => {
    for (const words of ["run", "backup", "restore", "destroy", "stop", "job x", "adopt", "identity --new"]) {
      const { stderr, status } = await box.vm(words.split(" "), { cwd: vm });
      expect(`${words}: ${status} ${stderr}`).toMatch(
        /: 73 [^]*belongs to another user[^]*sudo -u '#1234' vm /,
      );
      expect(stderr).not.toMatch(/\brm\b|remove/);
    }
    const work = dirname(await shell("readlink -f .work/guest.env", vm));
    const looked = await box.vm(["status"], { cwd: work });
    expect(looked.status).toBe(0);
    expect(looked.stdout).toContain(`directory:     ${vm}\n`);
  });

  rootTest("working files of another user: no hint that loses them", async () => {
    const mine = join(box.home, "vm/mine");
    mkdirSync(mine);
    symlinkSync(await shell('printf %s "$(readlink -f .work)"', vm), join(mine, ".work"));
    const refused = await box.vm(["backup"], { cwd: mine });
    expectError(refused, 74, /cannot use .*\.work: .* belongs to uid 1234/);
    expect(refused.stderr).toContain("sudo -u '#1234' vm");
    expect(refused.stderr).not.toMatch(/\brm\b/);
    rmSync(mine, { recursive: true });
  });

  rootTest("a user's VM whose working files are root's: the owner, and what to do", async () => {
    const [user, work] = [join(box.home, "vm/b"), join(box.top, "tmp/vm-of-root")];
    mkdirSync(user);
    mkdirSync(work, { mode: 0o700 });
    symlinkSync(work, join(user, ".work"));
    await shell(`chown -hR ${UID}:${UID} '${user}'`, box.top);
    expect((await asUser(["-d", user, "status"])).status).toBe(73);
    for (const words of [["run"], ["backup"]]) {
      const refused = await asUser(["-d", user, ...words]);
      expectError(refused, 73, /cannot open .*vm-of-root: permission denied; it belongs to root/);
      expect(refused.stderr).toMatch(/act as that user: sudo .*vm/);
      expect(refused.stderr).not.toContain("interrupted");
    }
    for (const path of [user, work]) rmSync(path, { recursive: true });
  });

  rootTest("an unreadable directory in PROFILES: list shows it with the reason, and the others", async () => {
    const [lost, closed] = [join(box.home, "vm/lost+found"), join(box.home, "vm/closed")];
    for (const path of [lost, closed]) mkdirSync(path, { mode: 0o700 });
    const { stdout, status } = await asUser(["list"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^a +created /m);
    expect(stdout).toMatch(/^closed +broken /m);
    expect(stdout).toMatch(/^closed: cannot open .*closed: permission denied/m);
    expect(stdout).not.toContain("lost+found");
    const rescues = await asUser(["rescue", "list"]);
    expect(rescues.status).toBe(0);
    expect(rescues.stderr).toMatch(/cannot open .*closed: perm/);
    expect(rescues.stderr).not.toContain("lost+found");
    expectError(await asUser(["-d", closed, "status"]), 73, /cannot open .*closed: permission denied/);
    for (const path of [lost, closed]) rmSync(path, { recursive: true });
  });

  rootTest("an unreadable snapshot is damaged; the others are listed, and pruned", async () => {
    const snapshot = join(vm, "backups/S0");
    expect(await asUser(["backup"])).toMatchObject({ status: 0 });
    chownSync(snapshot, 0, 0);
    chmodSync(snapshot, 0o700);
    const listed = await asUser(["snapshots"]);
    expect(listed.status).toBe(0);
    expect(listed.stdout).toMatch(/^S0 .*damaged/m);
    expect(listed.stdout).toMatch(/^S1 .*offline/m);
    expect(await asUser(["prune", "--keep-last=1", "--dry-run"])).toMatchObject({ status: 0 });
    chownSync(snapshot, UID, UID);
  });

  rootTest("files of the earlier program: every command suggests adopt, and none a removal", async () => {
    const work = await shell('printf %s "$(readlink -f .work)"', vm);
    unlinkSync(join(work, ".vm.json"));
    chmodSync(work, 0o755);
    const commands = "run backup restore destroy stop restart pause console ssh status view";
    for (const words of [
      ...commands.split(" "),
      "job x",
      "prune --keep-last=1",
      "snapshots rm S0",
      "create x",
    ]) {
      const { stdout, stderr } = await asUser(words.split(" "));
      expect(`${words}: ${stdout}${stderr}`).toMatch(/adopt them.*: \S*vm adopt/);
      expect(stderr).not.toMatch(/\brm /);
    }
    expect(await asUser(["adopt"])).toMatchObject({ status: 0 });
    expect(await shell(`stat -c %a "${work}"`, vm)).toBe("700\n");
    const { stderr, status } = await asUser(["backup"]);
    expect(status).toBe(0);
    expect(stderr).toContain("the exit reason of the last run is unknown");
    expect(readdirSync(join(vm, "backups"))).toContain("S2");
  });
});
