/**
 * The trust model (README, "Trust"; src/lib/trust.ts) as a table: each command on each kind of directory with each
 * carrier. Nothing outside is read, written or run; nothing hangs, fills memory, or controls the terminal.
 *
 * A sample of the carriers, each in one kind of directory, with a reading and a changing command; `scripts/soak
 * --only=tests` tests each carrier, and with TRUST=all each command in each kind of directory (hours). Repositories:
 * trust-remote.test.ts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "./harness.ts";
import { allVariations, isRoot, seed, shell, suite } from "./tools.ts";
import { CARRIERS, type Carrier } from "./trust-carriers.ts";
import { random, READING, TrustLab } from "./trust-lab.ts";

const all = process.env.TRUST === "all";
/** Size of the sample of generated carriers. */
const SHARE = all || allVariations ? 1 : 0.04;

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

/** These obey an own directory, like a Makefile. In a foreign one they are refused. */
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

/** The origin of a directory. */
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

const FOREIGN_UID = "1234";

/** Names, kinds, times and sizes, without opening. */
const listTree = (dir: string): string =>
  execFileSync("find", [dir, "-printf", "%d %f %y %m %s %T@ %l\n"], { maxBuffer: 64 << 20 }).toString();

/** All special cases, and some of the others. */
const CHOSEN = CARRIERS.filter(({ name, made }) => made === undefined || random(name)() < SHARE);

suite(
  `trust (VM_TEST_SEED=${seed})`,
  () => {
    let lab: TrustLab;
    let box: Sandbox;
    let base: string;
    let outside: string;

    beforeAll(async () => {
      lab = new TrustLab();
      ({ box, base, outside } = lab);
      await lab.create();
    });
    afterAll(() => lab?.[Symbol.dispose]());

    async function tryAll(carrier: Carrier, kind: string, commands: readonly string[]): Promise<string[]> {
      const wrong: string[] = [];
      const dir = join(box.home, "vm/hostile");
      const foreign = kind === "another user's";
      const renew = (): void => {
        execFileSync("rm", ["-rf", join(box.home, "vm")]);
        mkdirSync(join(box.home, "vm"), { recursive: true, mode: 0o755 });
        KINDS[kind]!(base, dir);
        carrier.put(dir, outside);
        if (foreign) execFileSync("chown", ["-hR", `${FOREIGN_UID}:${FOREIGN_UID}`, dir]);
      };
      let fresh = false;
      for (const command of commands) {
        if (!fresh) renew();
        fresh = READING.includes(command);
        const before = foreign ? listTree(dir) : "";
        const found = await lab.tryCommand(command, dir);
        if (foreign && listTree(dir) !== before) found.push(`vm ${command}: the directory was changed`);
        wrong.push(...found.map((text) => `${kind}: ${text}`));
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
          const own = CHANGING.filter((command) => command !== carrier.allowed);
          const others = kind === "another user's" ? [...CHANGING, ...OBEYING] : own;
          const commands = all ? [...READING, ...others] : [pick(READING), pick(others)];
          wrong.push(...(await tryAll(carrier, kind, commands)));
        }
        expect(wrong).toEqual([]);
      },
      all ? 3_600_000 : 120_000,
    );

    test("status and doctor show the access outside a directory", async () => {
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
        { kind: "share", what: "/etc" },
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

    test("ignores a vm.defaults that others can write (78); the user's own may be a symlink", async () => {
      const dir = join(box.top, "arguments");
      execFileSync("cp", ["-a", base, dir]);
      const file = join(dir, "vm.defaults");
      writeFileSync(file, "-nonsense\n");
      chmodSync(file, 0o666);
      const refused = await box.vm(["run"], { cwd: dir });
      expect(refused.stderr).toContain(`refusing to use ${file}: ${file} is writable by other users`);
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

    test("the table detects violations", async () => {
      await shell(`cat secret >/dev/null; : >../ran; echo x >>victim`, outside);
      const found = lab.checkOutside().join("\n");
      expect(found).toContain("victim outside was changed");
      expect(found).toContain("a program was run");
      if (lab.tellsReading) expect(found).toContain("secret outside was read");
    });
  },
  ["tar", "mkfifo", "python3"],
);
