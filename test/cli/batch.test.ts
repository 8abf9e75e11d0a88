import { describe, expect, test } from "bun:test";
import { parseBatch } from "../../src/cli/batch.ts";
import { COMMANDS, OLD_NAMES } from "../../src/cli/registry.ts";
import { usageOf } from "../../src/cli/signature.ts";
import { meaningOf, showInvocation, wordsOf } from "./lines.ts";

const batchOf = (line: string): string =>
  meaningOf(() => parseBatch(wordsOf(line), "vm").map(showInvocation).join(" "));

/** Commands that the earlier program did not have need their @ within a batch. */
const NEWER = [...COMMANDS.keys()].filter((name) => !(OLD_NAMES as readonly string[]).includes(name));

describe("a single command", () => {
  test.each([
    ["", "[run()]"],
    ["run", "run()"],
    ["@run", "run()"],
    ["run x.iso", "run(isoimage=x.iso)"],
    ["create WS10", "create(guestname=WS10)"],
    ["create WS10 x.iso", "create(guestname=WS10, isoimage=x.iso)"],
    ["backup", "backup()"],
    ["backup S7", "backup(snapshot=S7)"],
    // [compat] An empty word is an argument like any other.
    ["backup ''", "backup(snapshot='')"],
    ["backup '' some·text", "backup(snapshot='', description='some text')"],
    ["restore ''", "restore(snapshot='')"],
    ["run ''", "run(isoimage='')"],
    ["create A ''", "create(guestname=A, isoimage='')"],
    ["restore '' run ''", "restore(snapshot='') run(isoimage='')"],
    ["backup S7 before·the·update", "backup(snapshot=S7, description='before the update')"],
    ["restore", "restore()"],
    ["restore S7", "restore(snapshot=S7)"],
    ["destroy", "destroy()"],
    ["destroy --force", "destroy(--force)"],
    ["destroy --fo", "destroy(--force)"],
    ["job add-ssh-keys", "job(jobname=add-ssh-keys)"],
    ["job --list", "job(--list)"],
    ["config", "config()"],
    ["config CORES", "config(name=CORES)"],
    ["config CORES MEMORY --json HOST", "config(name=CORES,MEMORY,HOST, --json)"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });
});

describe("a single word that is not a command is a CD image", () => {
  test.each([
    ["x.iso", "[run(isoimage=x.iso)]"],
    ["bakcup", "[run(isoimage=bakcup)]"],
    ["@MEDIA@/x.iso", "[run(isoimage=@MEDIA@/x.iso)]"],
    ["@Backup", "[run(isoimage=@Backup)]"],
    ["@", "[run(isoimage=@)]"],
    ["RUN", "[run(isoimage=RUN)]"],
    ["constructor", "[run(isoimage=constructor)]"],
    ["__proto__", "[run(isoimage=__proto__)]"],
    // [compat] No ISO.
    ["''", "[run(isoimage='')]"],
    ["@nothing", "64: unknown command 'nothing'"],
    ["@constructor", "64: unknown command 'constructor'"],
    ["@bakcup", "64: unknown command 'bakcup'"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });
});

describe("a batch", () => {
  test.each([
    ["@create A @run @backup", "create(guestname=A) run() backup()"],
    // [compat] The six old names end an argument list as bare words.
    ["create A run backup", "create(guestname=A) run() backup()"],
    [
      "create A x.iso run backup S0 restore S0",
      "create(guestname=A, isoimage=x.iso) run() backup(snapshot=S0) restore(snapshot=S0)",
    ],
    ["backup run", "backup() run()"],
    // Behind a newer one they are arguments.
    ["config CORES MEMORY run", "config(name=CORES,MEMORY,run)"],
    ["list destroy", "list(selection=destroy)"],
    ["@list job @run", "list(selection=job) run()"],
    ["verify destroy", "verify(snapshot=destroy)"],
    ["snapshots destroy", "snapshots(action=destroy)"],
    ["run list", "run(isoimage=list)"],
    ["status run", "64: status: 'run' is one argument too many"],
    ["@config CORES @doctor", "config(name=CORES) doctor()"],
    ["backup S0 run", "backup(snapshot=S0) run()"],
    ["backup backup backup", "backup() backup() backup()"],
    ["restore destroy", "restore() destroy()"],
    ["run run x.iso", "run() run(isoimage=x.iso)"],
    ["destroy restore run", "destroy() restore() run()"],
    ["destroy --force @restore", "destroy(--force) restore()"],
    // A required argument may have the name of a command.
    ["create run", "create(guestname=run)"],
    ["create run run", "create(guestname=run) run()"],
    ["create create create B", "create(guestname=create) create(guestname=B)"],
    ["job backup backup", "job(jobname=backup) backup()"],
    ["job job", "job(jobname=job)"],
    ["create constructor", "create(guestname=constructor)"],
    ["create @odd", "create(guestname=@odd)"],
    // After the maximum number of arguments the next word must be a command.
    ["restore S0 run x.iso backup", "restore(snapshot=S0) run(isoimage=x.iso) backup()"],
    ["backup S0 text run", "backup(snapshot=S0, description=text) run()"],
    ["run @MEDIA@/x.iso @backup", "run(isoimage=@MEDIA@/x.iso) backup()"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });

  test.each(NEWER)("backup %s creates a snapshot of that name", (name) => {
    expect(batchOf(`backup ${name}`)).toBe(`backup(snapshot=${name})`);
  });

  test.each(["list", "status", "constructor", "__proto__", "stop"])(
    "backup %s creates a snapshot of that name",
    (name) => {
      expect(batchOf(`backup ${name}`)).toBe(`backup(snapshot=${name})`);
    },
  );
});

describe("a description may start with a dash", () => {
  test.each([
    ["backup S0 -x", "backup(snapshot=S0, description=-x)"],
    ["backup S0 --force", "backup(snapshot=S0, description=--force)"],
    ["backup S0 -·first·point @run", "backup(snapshot=S0, description='- first point') run()"],
    ["backup S0 ''", "backup(snapshot=S0, description='')"],
    ["backup S0 --full text", "backup(snapshot=S0, --full, description=text)"],
    ["backup S0 --format=gz --full", "backup(snapshot=S0, format=gz, --full)"],
    ["backup S0 --format qcow2 -x", "backup(snapshot=S0, format=qcow2, description=-x)"],
    ["backup S0 -- --full", "backup(snapshot=S0, description=--full)"],
    ["backup -- S0 --full", "backup(snapshot=S0, description=--full)"],
    ["backup -- S0 -x", "backup(snapshot=S0, description=-x)"],
    ["backup S0 -- -x", "backup(snapshot=S0, description=-x)"],
    ["backup -x text", "64: unknown option -x"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });
});

describe("a command that runs another takes the rest of the line", () => {
  test.each([
    ["ssh", "ssh()"],
    ["ssh uname -a", "ssh([uname -a])"],
    ["ssh -- -L 8080:localhost:80", "ssh([-L 8080:localhost:80])"],
    ["ssh --user=me -- -A ls -l", "ssh(user=me, [-A ls -l])"],
    ["ssh --user me ls --user=you", "ssh(user=me, [ls --user=you])"],
    ["exec -- ls -l", "exec([ls -l])"],
    ["exec ls -l", "exec([ls -l])"],
    ["exec ls -- -l ''", "exec([ls -- -l ''])"],
    ["exec -- -- x", "exec([-- x])"],
    // Not a command of this program, whatever its name.
    ["exec run", "exec([run])"],
    ["exec -- run @backup job", "exec([run @backup job])"],
    ["ssh -h", "ssh() help"],
    ["ssh ls -h", "ssh([ls -h])"],
    ["exec -h", "exec() help"],
    ["@run @exec true", "run() exec([true])"],
    ["run x.iso @ssh poweroff", "run(isoimage=x.iso) ssh([poweroff])"],
    ["cp a :/b", "cp([a :/b])"],
    ["cp -rp a b :/c", "cp(--recursive, --preserve, [a b :/c])"],
    ["cp -r -- -a :-b", "cp(--recursive, [-a :-b])"],
    ["exec", "64: exec: CMD [ARG…] is missing"],
    ["exec --", "64: exec: CMD [ARG…] is missing"],
    ["exec ''", "64: exec: CMD [ARG…] is missing"],
    ["cp", "64: cp: SRC… DST is missing"],
    ["ssh -L 8080:localhost:80", "64: unknown option -L"],
    ["exec -x", "64: unknown option -x"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });

  test("announces its words, and suggests --", () => {
    expect(parseBatch(wordsOf("ssh --user=me -- ls -l"), "vm").map(({ words }) => words)).toEqual([
      ["ls", "-l"],
    ]);
    expect(() => parseBatch(["ssh", "-L", "1"], "vm")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("vm ssh -- -L 1") }),
    );
  });
});

describe("words after -- are not options", () => {
  test.each([
    ["run -- -odd.iso", "run(isoimage=-odd.iso)"],
    ["create -- -A -b.iso", "create(guestname=-A, isoimage=-b.iso)"],
    ["backup -- run", "backup(snapshot=run)"],
    ["run --", "run()"],
    ["run -- @backup", "run() backup()"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });
});

describe("help for one command", () => {
  test.each([
    ["run -h", "run() help"],
    ["run --help", "run() help"],
    ["create -h", "create() help"],
    ["create --he", "create() help"],
    ["@destroy --force -h", "destroy(--force) help"],
    ["run @create -h", "run() create() help"],
    ["create A -h", "create(guestname=A) help"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });
});

describe("an invalid batch", () => {
  test.each([
    ["create", "64: create: GUESTNAME is missing"],
    ["create @run", "64: create: GUESTNAME is missing"],
    ["create ''", "64: create: GUESTNAME is missing"],
    ["job", "64: job: JOBNAME is missing"],
    ["job ''", "64: job: JOBNAME is missing"],
    ["@job @run", "64: job: JOBNAME is missing"],
    ["run @job", "64: job: JOBNAME is missing"],
    ["run a b", "64: run: 'b' is one argument too many"],
    ["create A b c", "64: create: 'c' is one argument too many"],
    ["backup S0 text more", "64: backup: 'more' is one argument too many"],
    ["destroy x", "64: destroy: 'x' is one argument too many"],
    ["destroy constructor", "64: destroy: 'constructor' is one argument too many"],
    ["destroy ''", "64: destroy: '' is one argument too many"],
    ["nothing x", "64: unknown command 'nothing'"],
    ["constructor x", "64: unknown command 'constructor'"],
    ["'' x", "64: unknown command ''"],
    ["@run @nothing", "64: unknown command 'nothing'"],
    ["@run x.iso @nothing", "64: unknown command 'nothing'"],
    ["@backup @constructor", "64: unknown command 'constructor'"],
    ["run -x 8", "64: unknown option -x"],
    ["create A -c 8 run", "64: create: in a batch the option -c stands first"],
    ["destroy --force=1", "64: option --force takes no value"],
    ["run --force", "64: unknown option --force"],
    ["run --constructor", "64: unknown option --constructor"],
    ["run @backup --bogus", "64: unknown option --bogus"],
  ])("%s → %s", (line, meaning) => {
    expect(batchOf(line)).toBe(meaning);
  });

  test.each([
    ["@bakcup", "did you mean: vm @backup"],
    ["rnu x", "did you mean: vm run x"],
    ["net list", "list the network cards: vm nic list"],
    ["@ports", "list the port forwards: vm forward list"],
    ["@send-key x", "vm sendkey ctrl-alt-f2"],
    ["push S0", "copy a snapshot to the repository: vm snapshots push S0"],
    ["get MEMORY", "vm set SETTING=VALUE"],
    ["run a b", "usage: vm run [OPTIONS] [ISOIMAGE]"],
    ["run -x 8", "options of run: vm run -h"],
  ])("%s: the hint says %s", (line, hint) => {
    expect(() => parseBatch(wordsOf(line), "vm")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining(hint) }),
    );
  });

  test("an empty word suggests no command", () => {
    expect(() => parseBatch(["", "x"], "vm")).toThrow(
      expect.objectContaining({ hint: expect.not.stringContaining("did you mean") }),
    );
  });
});

test("announces words as typed", () => {
  expect(parseBatch(wordsOf("create A·b x.iso @backup S0 -x"), "vm").map(({ words }) => words)).toEqual([
    ["A b", "x.iso"],
    ["S0", "-x"],
  ]);
});

test.each([
  ["run", "run [OPTIONS] [ISOIMAGE]"],
  ["create", "create [OPTIONS] GUESTNAME [ISOIMAGE]"],
  ["backup", "backup [OPTIONS] [SNAPSHOT [DESCRIPTION]]"],
  ["restore", "restore [OPTIONS] [SNAPSHOT]"],
  ["destroy", "destroy [--force]"],
  ["job", "job [--list] JOBNAME"],
  ["console", "console [--log] [--follow]"],
  ["exec", "exec CMD [ARG…]"],
  ["ssh", "ssh [--user=NAME] [ARG…]"],
  ["cp", "cp [--recursive] [--preserve] [--legacy] [--user=NAME] SRC… DST"],
])("usage of %s: %s", (name, usage) => {
  expect(usageOf(COMMANDS.get(name)!)).toBe(usage);
});
