/**
 * The trust model (README, "Trust"; src/lib/trust.ts) as a table: each command on each kind of directory with each
 * carrier. Nothing outside is read, written or run; nothing hangs, fills memory, or steers the terminal.
 *
 * A sample, by TRUST_SEED: carriers in one kind of directory, with a reading and a changing command. TRUST=carriers
 * takes each carrier, TRUST=all each command, too (hours); `-t NAME` one carrier.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { UnixSocketListener } from "bun";
import { binary, Sandbox } from "./harness.ts";
import { isRoot, listing, shell, suite } from "./tools.ts";
import { CARRIERS } from "./trust-carriers.ts";

const all = process.env.TRUST === "all";
/** How many of the carriers that are made by rule are in a sample. */
const SHARE = all || process.env.TRUST === "carriers" ? 1 : 0.2;
const seed = Number(process.env.TRUST_SEED ?? Math.floor(Math.random() * 1e9));

const READING = [
  "status",
  "status --json",
  "list",
  "list --json",
  "snapshots",
  "snapshots --json",
  "snapshots show S0",
  "snapshots diff S0 S1",
  "verify",
  "verify --all --deep",
  "verify --json S0",
  "config",
  "config --json",
  "doctor",
  "doctor --report",
  "console --log",
  "prune --keep-last=1 --dry-run",
  "timer --cron",
  "-h",
  "__complete bash 'vm restore ' ''",
  "__complete fish 'vm job '",
];

const CHANGING = [
  "stop --force",
  "backup",
  "restore S0",
  "restore S1",
  "prune --keep-last=1",
  "snapshots rm S0",
  "destroy",
  "restore S1 @backup @destroy",
];

/** For these an own directory is obeyed: it is like a Makefile. In a foreign one they are refused. */
const OBEYING = [
  "run",
  "run --detach --wait=ssh",
  "job evil",
  "ssh true",
  "exec true",
  "console",
  "screenshot",
  "view",
];

/** How a directory came here. */
const KINDS: Readonly<Record<string, (base: string, dir: string) => void>> = {
  own: (base, dir) => void execFileSync("cp", ["-a", base, dir]),
  "unpacked from a tar": (base, dir) => {
    mkdirSync(dir);
    execFileSync("sh", ["-c", `tar -C "$1" -cf - . | tar -C "$2" --no-same-owner -xf -`, "sh", base, dir]);
  },
  ...(isRoot
    ? { "another user's": (base: string, dir: string) => void execFileSync("cp", ["-a", base, dir]) }
    : {}),
};

const MAX_SECONDS = 10;
const MAX_BYTES = 300e6;
/** Of a command's output; a console's log may be as long as it likes. */
const MAX_OUTPUT_BYTES = 1 << 20;
const FOREIGN_UID = "1234";

/** Numbers from 0 to 1, the same for the same text and seed (mulberry32). */
function random(text: string): () => number {
  let state = Number(BigInt.asUintN(32, BigInt(Bun.hash(`${seed} ${text}`))));
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function take(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of stream) {
    text += decoder.decode(piece, { stream: true });
    if (text.length > MAX_OUTPUT_BYTES) break;
  }
  return text;
}

/** Names, kinds, times and sizes; nothing is opened. */
const listTree = (dir: string): string =>
  execFileSync("find", [dir, "-printf", "%d %f %y %m %s %T@ %l\\n"], { maxBuffer: 64 << 20 }).toString();

/** All that were made up for one fault, and some of the others. */
const CHOSEN = CARRIERS.filter(({ name, made }) => made === undefined || random(name)() < SHARE);

suite(
  `trust (TRUST_SEED=${seed})`,
  () => {
    let box: Sandbox;
    let base: string;
    let outside: string;
    let connections = 0;
    let listener: UnixSocketListener<undefined>;
    let canaries: string[];
    let tellsReading = false;

    beforeAll(async () => {
      box = new Sandbox();
      chmodSync(box.top, 0o755);
      base = join(box.top, "base");
      outside = join(box.top, "outside");
      mkdirSync(base, { mode: 0o700 });
      mkdirSync(join(outside, "victims"), { recursive: true });
      for (const name of ["secret", "victim", "victims/file", "victims/.vm.json"])
        writeFileSync(join(outside, name), `CANARY ${name}\n`);
      writeFileSync(join(outside, "program"), `#!/bin/sh\n: >'${box.top}/ran'\n`, { mode: 0o755 });
      await box.ok(
        ["--inplace", "-p", "", "-D", "VIRT=1M", "@create", "G", "@backup", "S0", "first", "@backup", "S1"],
        { cwd: base },
      );
      listener = Bun.listen({
        unix: join(outside, "sock"),
        socket: { data: () => {}, open: () => void connections++ },
      });
      setTimes();
      // Where the file system keeps times of access, reading shows.
      readFileSync(join(outside, "secret"));
      tellsReading = statSync(join(outside, "secret")).atimeMs > 1e9;
      canaries = listing(outside);
      setTimes();
    });
    afterAll(() => {
      listener?.stop(true);
      execFileSync("rm", ["-rf", box.top]);
      box?.[Symbol.dispose]();
    });

    /** Times of access before those of change: the next reading sets them (mount(8), relatime). */
    const setTimes = (): void => {
      for (const name of ["secret", "victim", "victims/file", "victims/.vm.json", "program"])
        utimesSync(join(outside, name), 1, 2);
    };

    /** What is wrong outside; puts it right again. */
    function checkOutside(): string[] {
      const wrong: string[] = [];
      for (const name of ["secret", "victim", "victims/file", "victims/.vm.json"]) {
        const stats = lstatSync(join(outside, name), { throwIfNoEntry: false });
        if (stats?.mtimeMs !== 2000) wrong.push(`${name} outside was changed`);
        else if (tellsReading && stats.atimeMs !== 1000) wrong.push(`${name} outside was read`);
      }
      const now = listing(outside);
      if (now.join("\n") !== canaries.join("\n")) wrong.push(`outside is ${now.join(", ")}`);
      if (existsSync(join(box.top, "ran"))) wrong.push("a program was run");
      if (connections > 0) wrong.push("a socket outside was connected to");
      connections = 0;
      rmSync(join(box.top, "ran"), { force: true });
      if (wrong.length === 0) setTimes();
      return wrong;
    }

    /** Runs a command and says what is wrong with it. */
    async function tryCommand(line: string, cwd: string, home: string): Promise<string[]> {
      const before = performance.now();
      const child = Bun.spawn(["bash", "-c", `exec '${binary}' ${line}`], {
        cwd,
        env: { ...box.env(), HOME: home, NO_COLOR: "1" },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const timer = setTimeout(() => child.kill("SIGKILL"), MAX_SECONDS * 1000);
      const [stdout, stderr] = await Promise.all([take(child.stdout), take(child.stderr)]);
      await child.exited;
      clearTimeout(timer);
      const seconds = (performance.now() - before) / 1000;
      const bytes = Number(child.resourceUsage()?.maxRSS ?? 0);
      const output = stdout + stderr;
      const wrong: string[] = [];
      if (child.signalCode) wrong.push(`ended by ${child.signalCode} after ${seconds.toFixed(1)} s`);
      if (child.exitCode === 70) wrong.push(`status 70: ${stderr.trim()}`);
      if (bytes > MAX_BYTES) wrong.push(`${(bytes / 1e6).toFixed(0)} MB of memory`);
      const control = /[^\P{Cc}\n\t]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.exec(output);
      if (control)
        wrong.push(
          `a control character: ${JSON.stringify(output.slice(Math.max(0, control.index - 40), control.index + 20))}`,
        );
      if (output.includes("CANARY")) wrong.push("shows a file outside");
      if (/^vm: all is well/m.test(output)) wrong.push("a line that is not the program's own");
      if (/^\s+at .*:\d+/m.test(stderr)) wrong.push(`a stack trace: ${stderr}`);
      return wrong;
    }

    async function tryAll(
      carrier: (typeof CARRIERS)[number],
      kind: string,
      commands: readonly string[],
    ): Promise<string[]> {
      const wrong: string[] = [];
      const home = join(box.top, "home");
      const dir = join(home, "vm/hostile");
      const foreign = kind === "another user's";
      const renew = (): void => {
        execFileSync("rm", ["-rf", join(home, "vm")]);
        mkdirSync(join(home, "vm"), { recursive: true, mode: 0o755 });
        KINDS[kind]!(base, dir);
        carrier.put(dir, outside);
        if (foreign) execFileSync("chown", ["-hR", `${FOREIGN_UID}:${FOREIGN_UID}`, dir]);
      };
      let fresh = false;
      for (const command of commands) {
        const reading = READING.includes(command);
        if (!fresh) renew();
        fresh = reading;
        const before = foreign ? listTree(dir) : "";
        const found = await tryCommand(command, dir, home);
        found.push(...checkOutside());
        if (foreign && listTree(dir) !== before) found.push("the directory was changed");
        wrong.push(...found.map((text) => `${kind}: vm ${command}: ${text}`));
      }
      return wrong;
    }

    test.each(CHOSEN.map((carrier) => [carrier.name, carrier] as const))(
      "%s",
      async (name, carrier) => {
        const next = random(name);
        const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)]!;
        const kinds = Object.keys(KINDS);
        const wrong: string[] = [];
        for (const kind of all ? kinds : [pick(kinds)]) {
          const others = kind === "another user's" ? [...CHANGING, ...OBEYING] : CHANGING;
          const commands = all ? [...READING, ...others] : [pick(READING), pick(others)];
          wrong.push(...(await tryAll(carrier, kind, commands)));
        }
        expect(wrong).toEqual([]);
      },
      all ? 600_000 : 60_000,
    );

    test("status and doctor show what a directory reaches for", async () => {
      const dir = join(box.top, "reaching");
      execFileSync("cp", ["-a", base, dir]);
      const settings = `SHARES=(\n"a:rw:/"\n"b:/etc"\n"c:rw:@DATADIR@"\n"d:rw:@MEDIA@/x"\n)
IMAGES=(\n"VIRT=qcow2=disk-0.img"\n"VIRT=raw=../outside/victim"\n"VIRT=raw=other.img"\n)\n`;
      const text = readFileSync(join(dir, "guest.env"), "utf8").replaceAll(
        /^(SHARES|IMAGES)=\([^)]*\)\n/gm,
        "",
      );
      writeFileSync(join(dir, "guest.env"), text + settings);
      writeFileSync(join(dir, "vm.defaults"), "-device x\n");
      writeFileSync(join(dir, "a\u001b\nb.pre"), "");
      const victim = join(outside, "victim");
      const argv = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", victim, join(dir, "disk-0.img"), "1M"];
      execFileSync("qemu-img", argv);
      const { stdout } = await box.ok(["status", "--json"], { cwd: dir });
      const reaches = [
        { kind: "share", what: "/", writable: true },
        { kind: "share", what: "@MEDIA@/x", writable: true },
        { kind: "image", what: victim, writable: true },
        { kind: "base", what: victim },
        { kind: "arguments", what: `${join(dir, "vm.defaults")} (2 arguments for qemu)` },
        { kind: "job", what: join(dir, "a\u001b\nb.pre") },
      ];
      expect(JSON.parse(stdout)).toMatchObject({ reaches });
      const shown = (await box.ok(["status"], { cwd: dir })).stdout;
      expect(shown.match(/^reaches for: +.*$/gm)).toHaveLength(reaches.length);
      expect(shown).toContain(`share /, writable\n`);
      expect(shown).toContain("a??b.pre\n");
      const checks = JSON.parse((await box.vm(["doctor", "--json"], { cwd: dir })).stdout).checks;
      expect(checks.filter(({ name }: { name: string }) => name === "reaches")).toHaveLength(reaches.length);
    });

    test("vm.defaults that others may write is not obeyed (78); the user's own may be a link", async () => {
      const dir = join(box.top, "arguments");
      execFileSync("cp", ["-a", base, dir]);
      const file = join(dir, "vm.defaults");
      writeFileSync(file, "-nonsense\n");
      chmodSync(file, 0o666);
      const refused = await box.vm(["run"], { cwd: dir });
      expect(refused.stderr).toContain(`${file} is not obeyed: ${file} may be written by others`);
      expect(refused.status).toBe(78);
      execFileSync("mv", [file, join(box.home, "dotfile")]);
      chmodSync(join(box.home, "dotfile"), 0o600);
      mkdirSync(join(box.home, ".config"), { recursive: true });
      symlinkSync("../dotfile", join(box.home, ".config/vm.defaults"));
      const obeyed = await box.vm(["run"], { cwd: dir });
      rmSync(join(box.home, ".config/vm.defaults"));
      expect(obeyed.stderr).toContain("-nonsense");
      expect(obeyed.status).toBe(74);
    });

    test("the table sees what it is to see", async () => {
      await shell(`cat secret >/dev/null; : >../ran; echo x >>victim`, outside);
      const found = checkOutside().join("\n");
      expect(found).toContain("victim outside was changed");
      expect(found).toContain("a program was run");
      if (tellsReading) expect(found).toContain("secret outside was read");
    });
  },
  ["tar", "mkfifo", "python3"],
);
