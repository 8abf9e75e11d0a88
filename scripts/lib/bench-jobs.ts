/**
 * How long jobs take: our own rescue warm and cold, the job that saves its state, jobs of UEFI guests, a rescue CD, and
 * virt-customize, beside each other; and many in a row, of which none may take long.
 */
import { mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { environment, median, printTable, vm, within } from "./bench-table.ts";

interface Options {
  scratch: string;
  rounds: number;
  /** Jobs in a row. */
  inRow: number;
  /** An ALT Rescue CD, or one like it; without it that row is left out. */
  iso: string | undefined;
}

/** A small system that libguestfs takes for one: enough for a command in chroot. */
const INSTALL = `mke2fs -q -t ext4 /dev/vda
mkdir /mnt/new; mount /dev/vda /mnt/new; cd /mnt/new
mkdir -p bin sbin etc lib lib64 usr/bin usr/lib var/lib/dpkg proc sys dev tmp root boot
cp /usr/bin/busybox bin/; for name in sh true ls cat mkdir rm mv cp chmod mount umount; do ln -s busybox bin/$name; done
for file in $(ldd /usr/bin/busybox 2>/dev/null | sed -n 's/.*\\(\\/lib[^ ]*\\).*/\\1/p'); do mkdir -p .\${file%/*}; cp $file .$file; done
echo '/dev/vda / ext4 defaults 0 0' >etc/fstab
printf 'ID=debian\\nVERSION_ID="12"\\nPRETTY_NAME="Debian"\\n' >etc/os-release
echo 12.0 >etc/debian_version; echo bench >etc/hostname; : >var/lib/dpkg/status
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
head -c 1048576 /dev/urandom >root/file
`;
const TRIVIAL = "echo done\n";
const CHROOT = "mount-system >/dev/null; chroot /mnt/system1 /bin/true\n";

function run(argv: string[], cwd: string, env: Record<string, string>): number {
  const begin = performance.now();
  const { exitCode, stdout, stderr } = Bun.spawnSync(argv, { cwd, env, stdin: "ignore" });
  const seconds = (performance.now() - begin) / 1000;
  if (exitCode !== 0) throw new Error(`${argv.join(" ")} ended with ${exitCode}:\n${stdout}${stderr}`);
  return seconds;
}

export function benchJobs({ scratch, rounds, inRow, iso }: Options): void {
  const host = join(scratch, "jobs");
  mkdirSync(host, { mode: 0o700 });
  const env = environment(scratch);
  const config = join(scratch, "home/.config");
  mkdirSync(config, { recursive: true });
  writeFileSync(join(config, "vm.conf"), "PORT=\nDISKS=( VIRT=1G )\n");
  const files = { "install.job": INSTALL, "trivial.job": TRIVIAL, "chroot.job": CHROOT };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(host, name), text);
  const building = run([vm, "rescue", "build"], host, env);
  if (iso) run([vm, "rescue", "build", `--iso=${iso}`, "--name=cd"], host, env);
  run([vm, "@create", "bench", "@job", "install"], host, env);
  const uefi = join(scratch, "uefi");
  mkdirSync(uefi, { mode: 0o700 });
  writeFileSync(join(uefi, "trivial.job"), TRIVIAL);
  run([vm, "--uefi", "create", "bench"], uefi, env);
  const disk = join(realpathSync(join(host, ".work")), "disk-0.img");
  const guestfs = Bun.which("virt-customize");
  const job = (name: string, ...options: string[]): number => run([vm, ...options, "job", name], host, env);
  const settings = (text: string): void =>
    writeFileSync(join(config, "vm.conf"), `PORT=\nDISKS=( VIRT=1G )\n${text}`);
  const secret = join(scratch, "restic.password");
  const repository = join(scratch, "files-repository");
  writeFileSync(secret, "secret\n", { mode: 0o600 });
  run(["restic", "init", "-q", "-r", repository, "--password-file", secret], host, env);
  const remote = `SNAPSHOT_REPO=${repository}\nSNAPSHOT_PASSWORD_FILE=${secret}\n`;
  settings(remote);
  run([vm, "@backup", "Z", "--format=gz", "@backup", "Q", "--format=qcow2", "--push"], host, env);
  const times = new Map<string, number[]>();
  const note = (row: string, seconds: number): void =>
    void times.set(row, [...(times.get(row) ?? []), seconds]);
  for (let round = 1; round <= rounds; round++) {
    console.error(`jobs, round ${round} of ${rounds} …`);
    settings("RESCUE_WARM=off\n");
    note("trivial, own rescue, cold", job("trivial"));
    note("chroot, own rescue, cold", job("chroot"));
    settings("");
    rmSync(join(scratch, "home/.cache/vm/warm"), { recursive: true, force: true });
    note("trivial, own rescue, the first", job("trivial"));
    note("trivial, own rescue, warm", job("trivial"));
    note("chroot, own rescue, warm", job("chroot"));
    note("trivial, UEFI guest, the first", run([vm, "job", "trivial"], uefi, env));
    note("trivial, UEFI guest, warm", run([vm, "job", "trivial"], uefi, env));
    settings(remote);
    const get = (name: string, ...words: string[]): number =>
      run([vm, "snapshots", "get", name, "/root/file", "-", ...words], host, env);
    note("one file of 1 MiB, qcow2", get("Q"));
    note("one file of 1 MiB, gz", get("Z"));
    note("one file of 1 MiB, repository", get("Q", "--remote"));
    settings("");
    if (iso) note("trivial, rescue CD, BIOS", job("trivial", "--rescue=cd"));
    if (guestfs) {
      const argv = [guestfs, "-q", "-a", disk, "--run-command", "true"];
      const direct = { LIBGUESTFS_BACKEND: "direct", LIBGUESTFS_BACKEND_SETTINGS: "force_tcg" };
      note("chroot, virt-customize", run(argv, host, { ...env, ...direct }));
    }
  }
  const all = Array.from({ length: inRow }, () => job("trivial"));
  const time = (row: string): number => median(times.get(row)!);
  const limits: [row: string, of: string, part: number][] = [
    ["trivial, own rescue, cold", "trivial, rescue CD, BIOS", 4],
    ["trivial, own rescue, warm", "trivial, rescue CD, BIOS", 30],
    ["chroot, own rescue, cold", "chroot, virt-customize", 4],
    ["chroot, own rescue, warm", "chroot, virt-customize", 25],
  ];
  const jobRows = [...times.keys()].filter((row) => !row.startsWith("one file"));
  const rows = jobRows.map((row) => {
    const limit = limits.find(([name, of]) => name === row && times.has(of));
    const part = limit ? time(limit[1]) / time(row) : 0;
    const beside = limit ? within(`${part.toFixed(1)}× as fast (>= ${limit[2]})`, part >= limit[2]) : "";
    return [row, `${time(row).toFixed(2)} s`, beside];
  });
  const gets: [row: string, limit: number][] = [
    ["one file of 1 MiB, qcow2", 1.5],
    ["one file of 1 MiB, gz", 1.5],
    ["one file of 1 MiB, repository", 4],
  ];
  for (const [row, limit] of gets)
    rows.push([row, `${time(row).toFixed(2)} s`, within(`<= ${limit} s`, time(row) <= limit)]);
  const add = (row: string, to: string): number => time(row) - time(to);
  const more = add("trivial, own rescue, the first", "trivial, own rescue, cold");
  const ratio = time("trivial, UEFI guest, warm") / time("trivial, own rescue, warm");
  const longest = Math.max(...all) / median(all);
  rows.push(
    ["the first job, beside a cold one", `${more.toFixed(2)} s`, within("<= 0.5 s more", more <= 0.5)],
    ["a UEFI guest's, beside a BIOS guest's", `${ratio.toFixed(2)}×`, within("<= 1.5×", ratio <= 1.5)],
    [
      `${inRow} warm ones in a row`,
      `${median(all).toFixed(2)} s`,
      within(`the longest ${longest.toFixed(1)}× (<= 2)`, longest <= 2),
    ],
  );
  printTable(
    `Jobs, from start to end: median of ${rounds}; the rescue was built in ${building.toFixed(1)} s`,
    [["job", "time", "beside the other way"], ...rows],
  );
  for (const one of [host, uefi]) rmSync(realpathSync(join(one, ".work")), { recursive: true });
}
