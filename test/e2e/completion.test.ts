/** Real shells, with the script of `vm completion`: what stands on the line after Tab. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Sandbox } from "./harness.ts";
import { ShellSession, type ShellName } from "./shell-session.ts";

/** A VM's directory with snapshots, jobs, and files whose names need quoting. */
function furnish(box: Sandbox): void {
  for (const name of ["S0", "S1", "before update", 'it\'s "new"', "Снимок"]) {
    mkdirSync(box.path("backups", name), { recursive: true });
    box.write(`backups/${name}/TS`, "2026-01-02 03:04:05\n");
  }
  for (const name of [
    "my disk.iso",
    "it's.iso",
    'say "x".iso',
    "$HOME.iso",
    "дистрибутив.iso",
    "notes.txt",
    "iso images/inner.iso",
    "own.job",
  ])
    box.write(name, "");
  mkdirSync(join(box.top, "other vm/backups/Elsewhere"), { recursive: true });
  writeFileSync(join(box.home, "home cd.iso"), "");
  mkdirSync(join(box.home, "vm/rescue-mine"), { recursive: true });
  writeFileSync(join(box.home, "vm/rescue-mine/guest.env"), "RESCUE_ISO=x.iso\n");
}

/** Typed, and the words that the program gets. */
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
  // Nothing fits: the line stays as it is.
  ["vm restore nowhere⇥", ["restore", "nowhere"]],
  ["vm create G notes⇥", ["create", "G", "notes"]],
];

const trimmed = (words: string[]): string[] => words.map((word) => word.replace(/\/$/, ""));

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
  test.each(TABLE)("%s", async (typed, words) => {
    const got = await session.type(typed);
    expect(trimmed(got)).toEqual(trimmed(words.map((word) => word.replace("HOME/", `${box.home}/`))));
  });
});
