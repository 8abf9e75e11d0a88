/** Real shells with the script of `vm completion`: the line after Tab. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Sandbox } from "./harness.ts";
import { programIn, ShellSession, type SessionOptions, type ShellName } from "./shell-session.ts";
import { expectError, names, sampled, suite } from "./tools.ts";

/** A VM's directory with snapshots, jobs, and files whose names need quoting. */
function furnish(box: Sandbox): void {
  for (const name of ["S0", "S1", "before update", 'it\'s "new"', "Снимок", "one\\slash"]) {
    mkdirSync(box.path("backups", name), { recursive: true });
    box.write(`backups/${name}/TS`, "2026-01-02 03:04:05\n");
    box.write(`backups/${name}/DESCRIPTION`, "all is well\n");
  }
  for (const name of [
    "my disk.iso",
    "it's.iso",
    'say "x".iso',
    "$HOME.iso",
    "odd: {a} & [b].iso",
    "дистрибутив.iso",
    "notes.txt",
    "iso images/inner.iso",
    "own.job",
  ])
    box.write(name, "");
  mkdirSync(join(box.top, "other vm/backups/Elsewhere"), { recursive: true });
  writeFileSync(join(box.top, "other vm/backups/Elsewhere/TS"), "2026-01-04 00:00:00\n");
  writeFileSync(join(box.home, "home cd.iso"), "");
  mkdirSync(join(box.home, "vm/rescue-mine"), { recursive: true });
  writeFileSync(join(box.home, "vm/rescue-mine/guest.env"), "RESCUE_ISO=x.iso\n");
}

/** Typed line, and the resulting words of the program. */
const TABLE: [typed: string, words: string[]][] = [
  ["vm resto⇥", ["restore"]],
  ["vm @resto⇥", ["@restore"]],
  ["vm -c 8 @restore S0 @des⇥", ["-c", "8", "@restore", "S0", "@destroy"]],
  ["vm create G my⇥ @ru⇥", ["create", "G", "my disk.iso", "@run"]],
  ["vm --ar⇥i⇥ run", ["--arch=i386", "run"]],
  ["vm -a x⇥ run", ["-a", "x86_64", "run"]],
  ["vm -D AHCI=5G,NV⇥8G run", ["-D", "AHCI=5G,NVME=8G", "run"]],
  ["vm --disks=VI⇥8G run", ["--disks=VIRT=8G", "run"]],
  ["vm restore bef⇥", ["restore", "before update"]],
  ['vm restore "bef⇥', ["restore", "before update"]],
  ["vm restore 'bef⇥", ["restore", "before update"]],
  ["vm restore before\\ up⇥", ["restore", "before update"]],
  ["vm restore it⇥", ["restore", 'it\'s "new"']],
  ["vm restore Сн⇥", ["restore", "Снимок"]],
  ["vm restore on⇥", ["restore", "one\\slash"]],
  ["vm create G od⇥", ["create", "G", "odd: {a} & [b].iso"]],
  ["vm create G odd:⇥", ["create", "G", "odd: {a} & [b].iso"]],
  ["vm create G my⇥", ["create", "G", "my disk.iso"]],
  ["vm create G my\\ d⇥", ["create", "G", "my disk.iso"]],
  ['vm create G "my⇥', ["create", "G", "my disk.iso"]],
  ["vm create G 'my d⇥", ["create", "G", "my disk.iso"]],
  ["vm create G it⇥", ["create", "G", "it's.iso"]],
  ["vm create G say⇥", ["create", "G", 'say "x".iso']],
  ["vm create G \\$H⇥", ["create", "G", "$HOME.iso"]],
  ["vm create G дист⇥", ["create", "G", "дистрибутив.iso"]],
  ["vm create G iso⇥in⇥", ["create", "G", "iso images/inner.iso"]],
  ["vm create G ~/ho⇥", ["create", "G", "HOME/home cd.iso"]],
  ["vm my⇥", ["my disk.iso"]],
  ["vm rescue bui⇥ --is⇥my⇥", ["rescue", "build", "--iso=my disk.iso"]],
  ["vm rescue build --iso iso⇥⇥", ["rescue", "build", "--iso", "iso images/inner.iso"]],
  ["vm --image=VIRT=raw=no⇥ run", ["--image=VIRT=raw=notes.txt", "run"]],
  ["vm -i VIRT=my⇥ run", ["-i", "VIRT=my disk.iso", "run"]],
  ["vm --hostdir ../ot⇥ run", ["--hostdir", "../other vm/", "run"]],
  ["vm -d '../other vm' restore El⇥", ["-d", "../other vm", "restore", "Elsewhere"]],
  ["vm -d ../other\\ vm restore El⇥", ["-d", "../other vm", "restore", "Elsewhere"]],
  ["vm --rescue=rescue-m⇥ job own", ["--rescue=rescue-mine", "job", "own"]],
  ["vm job ow⇥", ["job", "own"]],
  ["vm job add⇥", ["job", "add-ssh-keys"]],
  ["vm completion fi⇥", ["completion", "fish"]],
  // Without a candidate the line is unchanged.
  ["vm restore nowhere⇥", ["restore", "nowhere"]],
  ["vm create G notes⇥", ["create", "G", "notes"]],
];

/** A directory may end in a slash. */
const trimmed = (words: readonly string[]): string[] => words.map((word) => word.replace(/\/$/, ""));

/** Types lines in a shell. @returns the resulting words of each */
async function typed(
  name: ShellName,
  lines: readonly string[],
  options?: SessionOptions,
): Promise<string[][]> {
  using box = new Sandbox();
  furnish(box);
  using session = new ShellSession(box, name, options);
  const all: string[][] = [];
  for (const line of lines) all.push(trimmed(await session.type(line)));
  return all;
}

const BASH_COMPLETION = "/usr/share/bash-completion/bash_completion";

suite(
  "completion",
  () => {
    describe.each<ShellName>(["bash", "zsh", "fish"])("%s", (name) => {
      let box: Sandbox;
      let session: ShellSession;
      beforeAll(() => {
        box = new Sandbox();
        furnish(box);
        session = new ShellSession(box, name);
      });
      afterAll(() => {
        session[Symbol.dispose]();
        box[Symbol.dispose]();
      });

      test.each(sampled(TABLE, 1, 12))("%s", async (line, words) => {
        const expected = words.map((word) => word.replace(/^HOME/, box.home));
        expect(trimmed(await session.type(line))).toEqual(trimmed(expected));
      });

      test("displays several candidates", async () => {
        await session.type("vm restore S⇥⇥1");
        expect(session.screen).toContain("S0");
        if (name !== "bash") expect(session.screen).toContain("2026-01-02 03:04:05 all is well");
      });

      test("the program with another name", async () => {
        expect(await typed(name, ["my-vm @resto⇥ bef⇥"], { prog: "my-vm" })).toEqual([
          ["@restore", "before update"],
        ]);
      });
    });

    test("bash with bash-completion, after other commands", async () => {
      const load = `source ${BASH_COMPLETION}\nsource <(vm completion bash)\nsudo() { "$@"; }`;
      const lines = ["vm --ar⇥i⇥ run", "vm @des⇥", "vm rescue build --iso=my⇥", "sudo vm resto⇥ bef⇥"];
      expect(await typed("bash", lines, { load })).toEqual([
        ["--arch=i386", "run"],
        ["@destroy"],
        ["rescue", "build", "--iso=my disk.iso"],
        ["restore", "before update"],
      ]);
    });

    test("zsh with the script in fpath", async () => {
      const load =
        'mkdir -p $ZDOTDIR/site; vm completion zsh >$ZDOTDIR/site/_vm; fpath=($ZDOTDIR/site $fpath); compinit -u -D\nsudo() { "$@" }';
      expect(await typed("zsh", ["vm resto⇥ bef⇥", "sudo vm @des⇥", "vm create G ~/ho⇥"], { load })).toEqual([
        ["restore", "before update"],
        ["@destroy"],
        ["create", "G", expect.stringMatching(/\/home cd\.iso$/)],
      ]);
    });

    test("fish after keywords and other commands", async () => {
      const load =
        "set fish_complete_path $__fish_data_dir/completions; vm completion fish | source; function sudo; $argv; end";
      const lines = [
        "sudo vm resto⇥",
        "not vm resto⇥",
        "X=1 vm resto⇥",
        "if vm resto⇥; end",
        "true; and vm resto⇥",
      ];
      expect(await typed("fish", lines, { load })).toEqual(lines.map(() => ["restore"]));
    });

    test("bash's function, with its calling convention", async () => {
      using box = new Sandbox();
      furnish(box);
      const ask = (...words: string[]): Promise<string> =>
        Bun.$`bash -euc ${'eval "$(vm completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vm; printf "%s\\n" "${COMPREPLY[@]}"'} - ${words}`
          .cwd(box.host)
          .env(box.env({ PATH: `${programIn(box)}:${process.env.PATH}` }))
          .text();
      expect(await ask("vm", "-c", "8", "@cr")).toBe("@create\n");
      expect(await ask("vm", "--arch=i")).toBe("--arch=i386\n");
      expect(await ask("vm", "restore", "bef")).toBe("before\\ update\n");
      expect(await ask("vm", "completion", "")).toBe("bash\nzsh\nfish\n");
    });

    test("prints the script without messages", async () => {
      using box = new Sandbox();
      const { stdout, stderr } = await box.ok(["completion", "bash"]);
      expect(stdout).toContain("complete ");
      expect(stderr).toBe("");
      expectError(await box.vm(["completion", "tcsh"]), 64, /'tcsh' is not supported/);
      expectError(await box.vm(["completion"]), 64, /SHELL is missing/);
    });

    test("answers print no errors, and nothing is evaluated or left", async () => {
      using box = new Sandbox();
      box.write("guest.env", "touch pwned\nCORES=$(touch pwned)\nPORT=wrong\n");
      for (const words of [
        [],
        ["tcsh", "vm "],
        ["fish", "vm job nothing"],
        ["fish", "vm -d /nowhere restore "],
        ["bash", "vm 'x", "y"],
      ]) {
        const { stdout, stderr } = await box.ok(["__complete", ...words]);
        expect([stdout.trim().replaceAll(/^@.*\n?/gm, ""), stderr]).toEqual(["", ""]);
      }
      expect((await box.ok(["__complete", "fish", "vm job add"])).stdout).toBe("add-ssh-keys\tbundled\n");
      expect([names(box.host), names(box.home), names(box.tmp)]).toEqual([["guest.env"], [], []]);
    });
  },
  ["zsh", "fish"],
);
