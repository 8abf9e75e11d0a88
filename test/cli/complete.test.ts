import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { answerShell } from "../../src/cli/complete/answer.ts";
import { splitLine } from "../../src/cli/complete/line.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { ARCHES, DISK_BUSES } from "../../src/machine/types.ts";
import { COMMANDS } from "../../src/cli/registry.ts";
import { collectFacts } from "../../src/cli/surroundings.ts";
import type { ProcessFacts } from "../../src/vm/context.ts";
import { Temp } from "../fixtures/temp.ts";

const BUSES = DISK_BUSES.map((bus) => `${bus}=`);

const temp = new Temp();
afterAll(() => temp[Symbol.dispose]());
const context: ProcessFacts = {
  ...collectFacts("vm", "0", { settings: {}, additions: {}, hostdir: undefined }),
  home: temp.directory("home"),
  cwd: temp.directory("here"),
  env: {},
};
for (const [name, stamp] of [
  ["S0", "2026-01-01 00:00:00"],
  ["S1", "2026-01-03 00:00:00"],
  ["before update", "2026-01-02 00:00:00"],
])
  temp.write(`here/backups/${name}/TS`, `${stamp}\n`);
temp.write("here/backups/S1/DESCRIPTION", "tabs\tand\nlines\n");
temp.directory("here/backups/.vm-partial-S2");
temp.write("there/backups/Elsewhere/TS", "2026-01-04 00:00:00\n");
for (const name of [
  "cd.iso",
  "CD2.ISO",
  "my disk.iso",
  ".hidden.iso",
  "notes.txt",
  "mine.job",
  "run-ssh.job",
  "mine.pre",
])
  temp.write(`here/${name}`, "");
temp.write("here/iso/deep.iso", "");
temp.write("here/odd\nname.iso", "");
temp.write("home/home.iso", "");
temp.write("home/vm/rescue-mine/guest.env", "RESCUE_ISO=x.iso\n");
temp.write("home/vm/ws10/guest.env", "GUESTNAME=x\n");
temp.write("home/vm/scripts/jobs/yours.job", "");
temp.write("home/vm/scripts/jobs/post-install.job", "");
symlinkSync("iso", temp.path("here/link"));
symlinkSync("nowhere", temp.path("here/broken"));

const ask = async (shell: string, line: string, word?: string): Promise<string[]> => {
  const answer = await answerShell(context, [shell, line, ...(word === undefined ? [] : [word])]);
  return answer.split("\n").slice(0, -1);
};
/** Candidates without help texts; fish gets whole words. */
const candidates = async (line: string): Promise<string[]> =>
  (await ask("fish", line)).map((text) => text.split("\t")[0]!);

const AT = [...COMMANDS.keys()].map((name) => `@${name}`);
const BARE = [...COMMANDS.keys()];

describe("candidates at the end of", () => {
  test.each<[line: string, words: string[]]>([
    ["vm ", BARE],
    ["vm @", AT],
    ["vm cr", ["create"]],
    ["vm @cr", ["@create"]],
    ["vm -n cr", ["create"]],
    ["vm -- cr", ["create"]],
    ["vm nothing", []],
    ["vm cd.", ["cd.iso"]],
    ["vm cd c", ["cd.iso"]],
    ["vm run c", ["cd.iso", "create"]],
    ["vm cd.iso ", []],
    ["vm constructor ", []],
    ["vm constr", []],
    // Global options.
    ["vm run --ar", ["--arch="]],
    ["vm run --arch=i", ["--arch=i386"]],
    ["vm create foo -a i", ["i386"]],
    ["vm stop --ti", ["--timeout="]],
    ["vm timer bac", ["backup"]],
    ["vm --ar", ["--arch="]],
    ["vm --no-k", ["--no-keep-cd"]],
    ["vm --tm", []],
    ["vm -d there --ver", ["--version"]],
    [
      "vm -",
      GLOBAL_OPTIONS.filter(({ hidden }) => !hidden).map(({ long, value }) => `--${long}${value ? "=" : ""}`),
    ],
    ["vm -- --ar", []],
    ["vm --arch=", ARCHES.map((arch) => `--arch=${arch}`)],
    ["vm --ar=i", ["--ar=i386"]],
    ["vm --arch ", [...ARCHES]],
    ["vm -a i", ["i386"]],
    ["vm -ai", ["-ai386"]],
    ["vm -nai", ["-nai386"]],
    ["vm -c", []],
    ["vm -c ", []],
    ["vm -n", []],
    ["vm --cores=", []],
    ["vm --nonsense=", []],
    ["vm --nonsense cr", ["create"]],
    ["vm --uefi=", []],
    ["vm -D ", BUSES],
    ["vm -D AHCI=1G,N", ["AHCI=1G,NVME="]],
    ["vm --disks=V", ["--disks=VIRT="]],
    ["vm -i ", BUSES],
    ["vm -i VIRT=q", ["VIRT=qcow2=", "VIRT=qed="]],
    ["vm -i VIRT=raw=no", ["VIRT=raw=notes.txt"]],
    ["vm -i VIRT=no", ["VIRT=notes.txt"]],
    ["vm -i VIRT=@IN", ["VIRT=@INDIR@"]],
    ["vm create G --image=N", ["--image=NVME="]],
    ["vm create G -i VIRT=raw=no", ["VIRT=raw=notes.txt"]],
    ["vm -s x", []],
    [
      "vm -s x:",
      [
        "x:rw:",
        "x:backups/",
        "x:iso/",
        "x:link/",
        "x:@MEDIA@",
        "x:@MIRROR@",
        "x:@HOSTDIR@",
        "x:@INDIR@",
        "x:@DATADIR@",
      ],
    ],
    ["vm -s x:rw:is", ["x:rw:iso/"]],
    ["vm -f t", ["tcp::", "tcp:127.0.0.1:"]],
    ["vm --rescue=", ["--rescue=rescue-mine", "--rescue=auto"]],
    ["vm -d ", ["backups/", "iso/", "link/"]],
    ["vm -d ../t", ["../there/"]],
    // Arguments, and the next command.
    ["vm create ", []],
    ["vm create @", []],
    ["vm create G ", ["CD2.ISO", "backups/", "cd.iso", "iso/", "link/", "my disk.iso", ...AT]],
    ["vm create G c", ["cd.iso", "create"]],
    ["vm create G .h", [".hidden.iso"]],
    ["vm create G iso/", ["iso/deep.iso"]],
    ["vm create G link/", ["link/deep.iso"]],
    ["vm create G ~/h", ["~/home.iso"]],
    ["vm create G nowhere/", []],
    ["vm create G my\\ d", ["my disk.iso"]],
    ["vm create G 'my d", ["my disk.iso"]],
    ["vm create G cd.iso ", AT],
    ["vm create G cd.iso @r", AT.filter((name) => name.startsWith("@r"))],
    ["vm create G cd.iso re", ["restore"]],
    ["vm create G cd.iso x ", []],
    ["vm restore ", ["S1", "before update", "S0", ...AT]],
    ["vm restore b", ["before update", "backup"]],
    ["vm restore S0 ", AT],
    ["vm backup ", AT],
    ["vm backup S9 ", AT],
    ["vm backup S9 -", []],
    ["vm backup S9 -free -text", []],
    ["vm -d ../there restore E", ["Elsewhere"]],
    ["vm -d ../there --hostdir=. restore S", ["S1", "S0"]],
    ["vm --hostdir=../there @restore E", ["Elsewhere"]],
    ["vm -d /nowhere restore ", AT],
    [
      "vm job ",
      ["mine", "run-ssh", "yours", "post-install", "add-ssh-keys", "grow-fs", "new-identity"].toSorted(),
    ],
    ["vm clone S", ["S1", "S0"]],
    ["vm clone L", ["LAST"]],
    ["vm clone ../th", ["../there/"]],
    ["vm clone S1 ../th", ["../there/"]],
    ["vm clone --l", ["--linked"]],
    ["vm rename ../th", ["../there/"]],
    ["vm job mine ", AT],
    ["vm destroy --", ["--force", "--help"]],
    ["vm destroy --force @cr", ["@create"]],
    ["vm rescue ", ["build", "list"]],
    ["vm rescue build --k", ["--kernel="]],
    ["vm rescue build --iso=c", ["--iso=cd.iso"]],
    ["vm rescue build --iso m", ["my disk.iso"]],
    ["vm rescue build --modules=i", ["--modules=iso/"]],
    ["vm snapshots sh", ["show"]],
    ["vm snapshots rm S", ["S1", "S0"]],
    ["vm rescue build --root=i", ["--root=iso/"]],
    ["vm rescue build --compress=z", ["--compress=zstd"]],
    ["vm rescue --iso cd.iso b", ["build"]],
    ["vm completion ", ["bash", "zsh", "fish"]],
    ["vm -c 8 @create G cd.iso @run @resto", ["@restore"]],
    ["vm set ACC", ["ACCEL="]],
    ["vm set ACCEL=t", ["ACCEL=tcg"]],
    ["vm set CORES=2 NETBOOT=f", ["NETBOOT=first"]],
    ["vm set --unset=ACC", ["--unset=ACCEL"]],
    ["vm nic a", ["add"]],
    ["vm sendkey scr", ["scroll_lock"]],
    ["vm config CO", ["CORES", "CONTROLLER_PLACES"]],
    ["vm config CORES ME", ["MEMORY", "MEMORY_MAX", "MEDIA_MIRROR", "MEDIA_STORAGE"]],
    ["vm config CORES --", ["--example", "--json", "--help"]],
    ["vm run -b --wait=a", ["--wait=agent"]],
    ["vm -c 8 create G run restore S", ["S1", "S0"]],
    ["vm @unknown @re", []],
    // Aliases and paths of the program.
    ["/usr/local/bin/vm cr", ["create"]],
    ["v cr", ["create"]],
    ["vm", []],
  ])("%s", async (line, words) => {
    const got = await candidates(line);
    const unordered = line === "vm job ";
    expect(unordered ? got.toSorted() : got).toEqual(words);
  });
});

describe("each command's own options:", () => {
  test.each([...COMMANDS.values()])("vm $name --", async ({ name, options }) => {
    const all = options.map(({ long, value }) => `--${long}${value === undefined ? "" : "="}`);
    expect(await candidates(`vm -n ${name} --`)).toEqual([...all, "--help"]);
    expect(await candidates(`vm ${name.slice(0, -1)}`)).toContain(name);
  });
});

test("prints help texts after a tab, on one line", async () => {
  expect(await ask("fish", "vm restore S")).toEqual([
    "S1\t2026-01-03 00:00:00 tabs and lines",
    "S0\t2026-01-01 00:00:00",
  ]);
  expect(await ask("fish", "vm @cr")).toEqual([`@create\t${COMMANDS.get("create")!.summary}`]);
  expect(await ask("fish", "vm job ")).toContain("run-ssh\tthis VM's own");
});

describe("bash: mode, and replacements of the word", () => {
  test.each<[line: string, word: string, answer: string[]]>([
    ["vm @cr", "cr", ["", "create"]],
    ["vm --arch=i", "i", ["", "i386"]],
    ["vm --ar", "--ar", ["nospace", "--arch="]],
    ["vm -D AHCI=1G,N", "1G,N", ["nospace", "1G,NVME="]],
    ["vm restore b", "b", ["", "before\\ update", "backup"]],
    ['vm restore "b', "b", ["", "before update", "backup"]],
    ["vm restore before\\ ", "before\\ ", ["", "before\\ update"]],
    ["vm rescue build --iso=my", "my", ["filenames", "my disk.iso"]],
    ["vm rescue build --iso='my", "my", ["filenames", "my disk.iso"]],
    ["vm -d ../th", "../th", ["filenames", "../there"]],
    ["vm nothing", "nothing", [""]],
  ])("%s | %s", async (line, word, answer) => {
    expect(await ask("bash", line, word)).toEqual(answer);
  });
});

describe("zsh: length of the kept prefix, and completions", () => {
  test.each<[line: string, word: string, answer: string[]]>([
    ["vm @cr", "@cr", ["0", `s@create:${COMMANDS.get("create")!.summary}`]],
    ["vm --arch=i", "--arch=i", ["7", "si386"]],
    [
      "vm --ar",
      "--ar",
      ["0", "n--arch=:set the guest architecture: x86_64 i386 aarch64 armhf riscv64 ppc64le"],
    ],
    ["vm -s x:r", "x:r", ["2", "nrw\\::the guest may write there"]],
    ["vm create G ~/h", "~/h", ["2", "shome.iso"]],
    ["vm rescue build --iso=is", "--iso=is", ["6", "niso/"]],
    ["vm rescue build --iso=iso/d", "--iso=iso/d", ["10", "sdeep.iso"]],
    ["vm rescue build --iso='iso'/d", "--iso='iso'/d", ["12", "sdeep.iso"]],
    ["vm restore 'before", "before", ["0", "sbefore update:2026-01-02 00:00:00"]],
  ])("%s | %s", async (line, word, answer) => {
    expect(await ask("zsh", line, word)).toEqual(answer);
  });
});

describe("never fails", () => {
  test.each([
    [[]],
    [["tcsh", "vm cr"]],
    [["constructor", "vm cr"]],
    [["bash", "vm 'x\\", "'"]],
    [["fish", "vm -d \0 restore "]],
  ])("%j", async (words) => {
    expect(await answerShell(context, words)).toMatch(/^(nospace|filenames)?\n?$|@create/);
  });

  test("with settings that need bash, or are invalid", async () => {
    mkdirSync(temp.path("bad"));
    writeFileSync(temp.path("bad/guest.env"), "touch pwned\nCORES=$(touch pwned)\n");
    const words = await answerShell({ ...context, cwd: temp.path("bad") }, ["fish", "vm --rescue="]);
    expect(words).toBe("--rescue=rescue-mine\n--rescue=auto\tbuild one if none exists\n");
    expect(Bun.spawnSync(["find", temp.top, "-name", "pwned"]).stdout.toString()).toBe("");
  });
});

describe("splits a line into words", () => {
  test.each<[line: string, words: string[], text: string, quote: string]>([
    ["vm a  b", ["vm", "a"], "b", ""],
    ["vm ", ["vm"], "", ""],
    ["vm 'a b' \"c d\"e", ["vm", "a b"], "c de", ""],
    ["vm 'a b", ["vm"], "a b", "'"],
    ['vm "a \\"b\\x', ["vm"], 'a "b\\x', '"'],
    ["vm a\\ b\\", ["vm"], "a b", ""],
    ["vm '' \"", ["vm", ""], "", '"'],
  ])("%s", (line, words, text, quote) => {
    const { words: got, token } = splitLine(line);
    expect([got, token.text, token.quote]).toEqual([words, text, quote]);
  });

  test("fish escapes within single quotes", () => {
    expect(splitLine("vm 'it\\'s", true).token.text).toBe("it's");
  });

  test("records where each character ends", () => {
    expect(splitLine("vm 'a'\\ \"b\"").token.ends).toEqual([2, 5, 7]);
  });
});

test("labels of VMs are offered behind an @ and --label=", async () => {
  using box = new Temp();
  const labelled = { ...context, home: box.path("home"), profiles: box.path("home/vm") };
  box.write("home/vm/a/guest.env", "LABELS=(web lab)\n");
  const offered = (line: string): Promise<string> => answerShell(labelled, ["fish", line]);
  expect(await offered("vm stop @w")).toContain("@web");
  expect(await offered("vm list --label=")).toMatch(/lab[\s\S]*web/);
  expect(await offered("vm create @")).not.toContain("@web");
});

describe("arguments with choices", () => {
  const all = [...COMMANDS.values()].flatMap(({ name, positionals, options }) =>
    [...positionals, ...options].flatMap((argument) =>
      argument.choices
        ? [
            [
              "long" in argument ? `${name} --${argument.long}` : `${name} ${argument.label}`,
              argument,
            ] as const,
          ]
        : [],
    ),
  );

  test("are these", () => {
    expect(all.map(([title]) => title)).toEqual([
      "run --wait",
      "list STATE|PATTERN",
      "nic ACTION",
      "forward ACTION",
      "backup --format",
      "snapshots ACTION",
      "export --format",
      "import --format",
      "autostart ACTION",
      "autostart --wait",
      "disk ACTION",
      "rescue ACTION",
      "rescue --compress",
      "completion SHELL",
    ]);
  });

  test.each(all)("%s: its help lists the choices", (_title, { choices, help }) => {
    for (const choice of choices!) expect(help).toContain(choice);
  });
});
