/** Hints that are commands work: each is taken from an error and run by bash. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { binary, type Sandbox } from "./harness.ts";
import { sampled, smallSandbox, suite } from "./tools.ts";

interface Refusal {
  /** Run by bash in HOSTDIR. */
  line: string;
  status: number;
  /** The line of the hint to run; it must occur literally, except for a `cd` before it and `$PWD` in it. */
  hint: string;
  /** Exits with 0 if the hint has worked; the output of the hint's command is in `$said`. */
  holds: string;
  /** The exit status of the hint's command. */
  pasted?: number;
}

/** `line | status | hint | promise` */
const rows = (text: string): Refusal[] =>
  text
    .trim()
    .split("\n")
    .map((row) => {
      const [line = "", status = "", hint = "", holds = "true", pasted = "0"] = row
        .trim()
        .split(" | ")
        .map((cell) => cell.trim());
      return { line, status: +status, hint, holds, pasted: +pasted };
    });

/** Runs a line like a user who types it. */
async function type(
  box: Sandbox,
  line: string,
  env: Record<string, string> = {},
): Promise<{ status: number; said: string }> {
  const child = Bun.spawn(["bash", "-c", line], {
    cwd: box.host,
    env: { ...box.env(), PATH: `${join(box.top, "bin")}:${process.env.PATH}`, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { status: await child.exited, said: err + out };
}

/** @param prepare a command line to run before */
async function sandbox(prepare: string): Promise<Sandbox> {
  const box = smallSandbox();
  mkdirSync(join(box.top, "bin"));
  symlinkSync(resolve(binary), join(box.top, "bin/vm"));
  const { status, said } = await type(box, prepare);
  if (status !== 0) throw new Error(`${prepare}: ${said}`);
  return box;
}

async function check(box: Sandbox, { line, status, hint, holds, pasted }: Refusal): Promise<void> {
  const refused = await type(box, line);
  expect(refused, line).toMatchObject({ status });
  const shown = hint
    .replace(/^cd \.\. && /, "")
    .replaceAll('"$PWD/guest.env"', box.path("guest.env"))
    .replaceAll('"$PWD/guest.env.old"', box.path("guest.env.old"));
  const lines = refused.said.split("\n").filter((text) => text.startsWith("  "));
  const found = lines.find((text) => text === `  ${shown}` || text.endsWith(`: ${shown}`));
  expect(found, `${line}: ${refused.said}`).toBeDefined();
  const result = await type(box, hint);
  expect(result.status, `${hint}: ${result.said}`).toBe(pasted ?? 0);
  const looked = await type(box, holds, { said: result.said });
  expect(looked.status, `${holds}: ${result.said}${looked.said}`).toBe(0);
}

const HELP = `[[ $said == "vm "*"commands ("* ]]`;
const CREATED = `[ -L .work ] && grep -q '^GUESTNAME="foo"' .work/guest.env`;
const SNAPSHOT = `[ -f backups/S0/TS ] && [ -f backups/S1/TS ]`;

/** Without a VM. */
const NOWHERE = rows(`
  vm create -m 96M foo @backup | 64 | vm -m 96M @create foo @backup | ${CREATED} && grep -q 'MEMORY="96M"' .work/guest.env
  vm @create foo --cores 2 @backup | 64 | vm --cores=2 @create foo @backup | ${CREATED} && [ -f backups/S0/TS ]
  vm craete foo | 64 | vm create foo | ${CREATED}
  vm new foo | 64 | vm create foo | ${CREATED}
  vm help craete | 64 | vm help create | [[ $said == *GUESTNAME* ]]
  vm help nonsuch | 64 | vm help | ${HELP}
  vm nonsuch x | 64 | vm help | ${HELP}
  vm create foo --use-tmpdri | 64 | vm create -h | [[ $said == *GUESTNAME* ]]
  vm create foo -f 2222:22 | 64 | vm create foo -f tcp:127.0.0.1:2222-:22 | ${CREATED} && grep -q 'tcp:127.0.0.1:2222-:22' .work/guest.env
  vm -f 8080:80/udp create foo | 64 | vm -f udp:127.0.0.1:8080-:80 create foo | ${CREATED} && grep -q 'udp:127.0.0.1:8080-:80' .work/guest.env
  vm create foo -D 20M | 64 | vm create foo -D AHCI=20M | ${CREATED} && [[ $(vm status) == *"20 MiB"* ]]
  vm create foo --disks=virt=20M | 64 | vm create foo --disks=VIRT=20M | grep -q VIRT= .work/guest.env
  vm create foo -s /usr/lib | 64 | vm create foo -s lib:/usr/lib | grep -q lib:/usr/lib .work/guest.env
  vm create foo -i a.img | 64 | vm create foo --image=AHCI=a.img | ${CREATED}
  vm create foo --disk-size=20M | 64 | vm create NAME --disks=AHCI=20M | [[ $(vm status) == *"20 MiB"* ]]
  vm --bogus | 64 | vm -h | ${HELP}
  vm run | 66 | vm create vm1 | [ -L .work ]
  vm backup | 66 | vm create vm1 | [ -L .work ]
  vm restore | 66 | vm create vm1 | [ -L .work ]
  vm stop | 66 | vm create vm1 | [ -L .work ]
  vm ssh | 66 | vm create vm1 | [ -L .work ]
  vm timer | 66 | vm create vm1 | [ -L .work ]
  vm verify | 66 | vm create vm1 | [ -L .work ]
  vm snapshots rm S0 | 66 | vm create vm1 | [ -L .work ]
  vm adopt | 66 | vm create vm1 | [ -L .work ]
  vm identity | 66 | vm create vm1 | [ -L .work ]
  vm status | 66 | vm list | [[ $said == *'no VMs yet'* ]]
  vm -d .. status | 66 | vm list | [[ $said == *'no VMs yet'* ]]
  vm version | 66 | vm --version | [[ $said == *'vm 0.'* ]]
  vm ls | 66 | vm list | [[ $said == *'no VMs yet'* ]]
  vm config MEMRY | 64 | vm config | [[ $said == *MEMORY=* ]]
  vm console --follow | 64 | vm console --log --follow | [[ $said == *'there is no VM'* ]] | 66
  vm run --wait=ssh | 64 | vm run --detach --wait=ssh | [[ $said == *'there is no VM'* ]] | 66
  vm --detach run | 64 | vm run --detach | [[ $said == *'there is no VM'* ]] | 66
  vm cp a b | 64 | vm cp a :b | [[ $said == *'there is no VM'* ]] | 66
  vm ssh -p 22 | 64 | vm ssh -- -p 22 | [[ $said == *'there is no VM'* ]] | 66
  vm prune --by-name | 64 | vm prune --remote --by-name --keep-daily=7 --keep-weekly=4 | [[ $said == *'no repository'* ]] | 78
`);

/** With a VM that has never run. */
const MADE = rows(`
  vm create foo | 73 | vm status | [[ $said == *created* ]]
  vm create bar | 73 | mkdir ../bar && cd ../bar | [ -d ../bar ]
  vm restore | 66 | vm backup | [ -f backups/S0/TS ]
  vm snapshots --by-name | 64 | vm snapshots --remote --by-name | [[ $said == *'no repository'* ]] | 78
  vm bakcup | 66 | vm backup | [ -f backups/S0/TS ]
  vm @bakcup A @bakcup B | 64 | vm @backup A @bakcup B | [[ $said == *"unknown command 'bakcup'"* ]] | 64
  vm snapshot | 66 | vm backup | [ -f backups/S0/TS ]
  vm info | 66 | vm status | [[ $said == *created* ]]
  vm job add-ssh-kyes | 66 | vm job add-ssh-keys | [[ $said == *'rescue build'* ]] | 66
  vm rm foo | 64 | vm destroy | [ ! -e .work ]
  vm --force destroy | 64 | vm destroy --force | [ ! -e .work ]
  vm destroy --froce | 64 | vm destroy --force | [ ! -e .work ]
  vm backup --keep-last=1 | 64 | vm backup --prune --keep-last=1 | [ -f backups/S0/TS ]
  vm backup --prune | 64 | vm backup --prune --keep-daily=7 --keep-weekly=4 | [ -f backups/S0/TS ]
  KEEP_LAST=1 vm backup --prune | 64 | vm backup --prune --keep-last=1 | [ -f backups/S0/TS ]
  vm prune | 64 | vm prune --keep-daily=7 --keep-weekly=4 | [[ $said == *'0 of 0'* ]]
  vm prune --keep-dialy=7 | 64 | vm prune --keep-daily=7 | [[ $said == *'0 of 0'* ]]
  vm backup S0 -d . | 64 | vm -d . backup S0 | [ -f backups/S0/TS ]
  vm backup S0 text list | 64 | vm backup S0 text @list | [ -f backups/S0/TS ] && [[ $said == *created* ]]
  vm timer backup --fulll | 64 | vm backup --full | [ -f backups/S0/TS ]
  vm timer bakcup | 64 | vm timer backup | [[ $said == *ExecStart* ]]
  vm timer -- bakcup --full | 64 | vm backup --full | [ -f backups/S0/TS ]
  vm exec true | 66 | vm run --detach | vm stop --force && [[ $said == *background* ]]
  cd .. && vm -d vm1 view | 66 | cd .. && vm -d vm1 run --detach | vm destroy --force && [[ $said == *background* ]]
`);

/** With a VM that has a snapshot S0. */
const KEPT = rows(`
  vm @destroy @create foo | 73 | vm restore | [ -L .work ]
  vm @destroy @job add-ssh-keys | 66 | vm restore | [ -L .work ]
  vm @destroy @console --log | 66 | vm restore | [ -L .work ]
  vm backup S0 | 73 | vm backup | ${SNAPSHOT}
  vm snapshots S0 | 64 | vm snapshots show S0 | [[ $said == *S0* ]]
  vm snapshots list S0 | 64 | vm snapshots show S0 | [[ $said == *S0* ]]
  vm snapshots describe S0 some text | 64 | vm snapshots describe S0 'some text' | [[ $(vm snapshots) == *'some text'* ]]
  vm revert | 66 | vm restore | [[ $said == *'restored S0'* ]]
  vm rm S0 | 64 | vm snapshots rm S0 | [ ! -e backups/S0 ] && [[ $said == *'no snapshots left'* ]]
  vm fsck | 66 | vm verify | [[ $said == *S0* ]]
  vm forget | 66 | vm prune --keep-last=7 | [[ $said == *'0 of 1'* ]]
  cp .work/disk-0.img . && vm @destroy @restore | 73 | vm adopt | [ -L .work ]
  rm .work/.vm.json; vm backup | 74 | vm adopt | vm backup
  vm destroy && rm -r backups && vm run | 66 | mv "$PWD/guest.env" "$PWD/guest.env.old" && vm create vm1 | [ -L .work ]
`);

/** While a VM runs. */
const RUNNING = rows(`
  vm destroy | 75 | vm destroy --force | [ ! -e .work ]
  vm up | 66 | vm run --detach | [[ $said == *'is running'* ]] | 75
`);

/** Two at a time, each in a directory of its own, as most of the time is spent waiting for programs. */
const inTwos = (table: readonly Refusal[]): [lines: string, rows: Refusal[]][] =>
  table.flatMap((_row, index): [string, Refusal[]][] => {
    const chosen = table.slice(index, index + 2);
    return index % 2 === 0 ? [[chosen.map(({ line }) => line).join("; "), chosen]] : [];
  });

const STATES: [name: string, prepare: string, table: Refusal[]][] = [
  ["no VM", "true", NOWHERE],
  ["a VM that has never run", "vm create foo", MADE],
  ["a VM with a snapshot", "vm @create foo @backup", KEPT],
  ["a VM that runs", "vm @create foo @run --detach", RUNNING],
];

suite("hints can be pasted", () => {
  test("covers sixty errors", () => {
    expect(STATES.flatMap(([, , table]) => table).length).toBeGreaterThanOrEqual(60);
  });

  describe.each(STATES)("with %s", (_name, prepare, table) => {
    test.each(sampled(inTwos(table), 1, 3))("%s", async (_lines, chosen) => {
      await Promise.all(
        chosen.map(async (row) => {
          using box = await sandbox(prepare);
          await check(box, row);
        }),
      );
    });
  });
});

suite("unrequested messages", () => {
  test("list shows a VM outside of PROFILES that is off, and suggests create if there are none", async () => {
    using box = await sandbox("true");
    const none = await box.ok(["list"]);
    expect(none.stdout).toBe("");
    expect(none.stderr).toContain("no VMs yet; create one: mkdir -p ");
    await box.ok(["create", "foo"]);
    const { stdout } = await box.ok(["list", "-q"]);
    expect(stdout).toBe(`${box.host}\n`);
    await box.ok(["destroy"]);
    expect((await box.ok(["list", "-q"])).stdout).toBe("");
  });

  test("create reports what a reboot removes, destroy that it removes the only copy", async () => {
    using box = await sandbox("true");
    expect((await box.ok(["create", "foo"])).stderr).toContain(
      `a reboot empties ${box.tmp}; to keep the VM: vm backup`,
    );
    expect((await box.ok(["destroy"])).stderr).toContain(
      "warning: this VM has no snapshot: removing the only copy",
    );
    const inPlace = await box.ok(["create", "foo", "--inplace"]);
    expect(inPlace.stderr).not.toContain("reboot");
    await box.ok(["backup"]);
    expect((await box.ok(["destroy"])).stderr).not.toContain("only copy");
  });

  test("create --from reports that the disk is larger than the image, and how to keep its size", async () => {
    using box = await sandbox("qemu-img create -q -f qcow2 small.qcow2 8M");
    const { stderr } = await box.ok(["create", "foo", "--from=small.qcow2"]);
    expect(stderr).toContain(
      "the disk has 16 MiB, the image 8.0 MiB; keep the image's size: --disk-size=8388608\n",
    );
    await box.ok(["@destroy"]);
    await box.ok(["create", "foo", "--from=small.qcow2", "--disk-size=8388608"]);
    expect((await box.ok(["status"])).stdout).toContain("disk-0.img, 8.0 MiB");
  });

  test("read-only commands are not announced, a batch and the six old ones are", async () => {
    using box = await sandbox("vm create foo");
    expect((await box.ok(["status"])).stderr).toBe("");
    expect((await box.ok(["list"])).stderr).toBe("");
    expect((await box.ok(["@status", "@list"])).stderr.match(/Executing command/g)).toHaveLength(2);
    expect((await box.ok(["backup"])).stderr).toContain("*** Executing command: backup()...\n");
  });

  test("[compat] empty words, options of qemu after -m and -c, no address for the display", async () => {
    using box = await sandbox(
      "head -c 2048 /dev/zero > cd.iso && vm create foo cd.iso -m 64M,slots=2,maxmem=256M -c 1,threads=2 -p 5999 -H ''",
    );
    const { stderr } = await box.ok(["run", "", "--detach"]);
    expect(stderr).toContain("foo runs without a display");
    const script = box.read(".work/run-vm.sh");
    expect(script).toContain("sockets=1,cores=1,threads=2");
    expect(script).toContain("64M,slots=2,maxmem=256M");
    expect(script).not.toContain("cd.iso");
    await box.ok(["stop", "--force"]);
    await box.ok(["backup", "", "a text"]);
    expect(box.read("backups/S0/DESCRIPTION").trim()).toBe("a text");
    expect((await box.ok(["restore", ""])).stderr).toContain("restored S0");
  });

  test("help is available in the ways of other programs", async () => {
    using box = await sandbox("true");
    const [short, word] = [await box.ok(["-h"]), await box.ok(["help"])];
    expect(word.stdout).toBe(short.stdout);
    expect((await box.ok(["help", "run"])).stdout).toBe((await box.ok(["run", "-h"])).stdout);
  });
});
