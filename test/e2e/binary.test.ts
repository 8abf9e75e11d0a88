/** The compiled program by itself: its requirements, files and output. */
import { beforeAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { version } from "../../package.json";
import type { Guests } from "../guests/build.ts";
import { binary, guests, Sandbox } from "./harness.ts";
import { configure, expectError, names, runNumber, shell, smallSandbox, suite } from "./tools.ts";

let iso: Guests;

/** A minimal environment, like that of cron and `env -i`. */
const BARE = { HOME: undefined, TMPDIR: undefined, LANG: undefined };

suite(
  "binary",
  () => {
    beforeAll(async () => {
      iso = await guests();
    });

    test("-v and --version print the version of package.json", async () => {
      using box = new Sandbox();
      for (const option of ["-v", "--version", "--vers"])
        expect(await box.ok([option])).toMatchObject({ stdout: `vm ${version}\n`, stderr: "" });
      expect((await box.ok(["-m", "1G", "-v", "@run"])).stdout).toBe(`vm ${version}\n`);
    });

    test("-h prints options, commands, macros, current values and an example; COMMAND -h its own", async () => {
      using box = new Sandbox();
      const { stdout, stderr } = await box.ok(["-h"]);
      expect(stderr).toBe("");
      for (const word of ["create", "@MEDIA@", "--keep-cd", "[2G]", "[AHCI=30G]", "vm.defaults", "example"])
        expect(stdout).toContain(word);
      expect(stdout).not.toContain("--tmeout");
      for (const command of ["create", "run", "backup", "restore", "destroy", "job"])
        expect((await box.ok([command, "-h"])).stdout).toContain(`[@]${command}`);
      expect(names(box.host)).toEqual([]);
      expect(names(box.tmp)).toEqual([]);
    });

    test("needs only the C library", async () => {
      const lines = (await Bun.$`ldd ${binary}`.quiet().text()).trim().split("\n");
      for (const line of lines)
        expect(line).toMatch(/(linux-vdso|ld-linux[\w-]*|lib(c|m|dl|pthread|rt))\.so/);
    });

    test("alone in an empty directory, without HOME, with a minimal PATH", async () => {
      using box = new Sandbox();
      cpSync(binary, box.path("vm"));
      const env = { ...BARE, PATH: "/nonexistent" };
      const run = (...args: string[]) => box.vm(args, { env, program: ["./vm"] });
      expect((await run("-v")).stdout).toBe(`vm ${version}\n`);
      expect((await run("-h")).status).toBe(0);
      expectError(await run("restore"), 66, /there is no VM in/);
      expectError(await run("create", "G"), 69, /qemu-img is not installed/);
      expect(names(box.host)).toEqual(["vm"]);
    });

    test("the life cycle of a VM in cron's environment", async () => {
      using box = new Sandbox();
      const env = { ...BARE, PATH: "/usr/bin:/bin" };
      await box.ok(["--port=", "-m64M", "--inplace", "@create", "G", iso.installerIso, "@run", "@run"], {
        env,
      });
      await box.ok(["@backup", "@restore", "@run", "@destroy"], { env });
      expect(names(box.host)).toEqual(["backups", "guest.env"]);
    });

    test("without TMPDIR the working files are below /tmp", async () => {
      using box = smallSandbox();
      for (const TMPDIR of [undefined, "", "relative/path"]) {
        await box.ok(["create", "G"], { env: { TMPDIR } });
        expect(readlinkSync(box.path(".work"))).toMatch(/^\/tmp\/vm-/);
        await box.ok(["destroy"], { env: { TMPDIR } });
      }
    });

    test("ignores .env, bunfig.toml, package.json and the like in the current directory", async () => {
      using box = smallSandbox();
      const evil = `require("node:fs").writeFileSync(${JSON.stringify(box.path("pwned"))}, "")`;
      box.write("evil.js", evil);
      box.write("bunfig.toml", 'preload = ["./evil.js"]\n[run]\npreload = ["./evil.js"]\n');
      box.write(".env", `TMPDIR=${box.path("elsewhere")}\nPATH=/nonexistent\nHOME=${box.host}\nMEDIA=/x\n`);
      box.write("package.json", '{ "type": "module", "imports": { "#x": "./evil.js" } }');
      box.write("tsconfig.json", "{ broken");
      box.write("node_modules/consola/index.js", evil);
      mkdirSync(box.path("elsewhere"));
      await box.ok(["create", "G"]);
      expect(existsSync(box.path("pwned"))).toBe(false);
      expect(names(box.path("elsewhere"))).toEqual([]);
      expect(names(box.tmp)).toHaveLength(1);
    });

    test("ignores variables of node and zx", async () => {
      using box = smallSandbox();
      const env = { NODE_OPTIONS: "--require ./x.js", ZX_VERBOSE: "true", ZX_SHELL: "/bin/false" };
      const { stderr } = await box.ok(["create", "G"], { env });
      expect(stderr).not.toContain("qemu-img");
      expectError(await box.vm(["--eval", "1"], { env }), 64, /unknown option/);
    });

    test("results on stdout, everything else on stderr; no colours without a terminal", async () => {
      using box = smallSandbox();
      const { stdout, stderr } = await box.ok([
        "@create",
        "G",
        iso.installerIso,
        "@run",
        "@backup",
        "@destroy",
      ]);
      expect(stdout).toBe("");
      expect(stderr).not.toContain("\u001B");
      expect(stderr.match(/^\*\*\* Executing command: .*\.\.\.$/gm)).toHaveLength(4);
    });

    test("one warning about root, one about emulation, however many runs a batch has", async () => {
      using box = smallSandbox();
      const { stderr } = await box.ok(["@create", "G", iso.installerIso, "@run", "@run", "@run"]);
      for (const warning of [/warning: .*root/g, /warning: no KVM/g])
        expect((stderr.match(warning) ?? []).length).toBeLessThanOrEqual(1);
    });

    test("on a terminal: colours and a progress bar, unless disabled", async () => {
      using box = smallSandbox();
      await box.ok(["@create", "G", iso.installerIso, "@run"]);
      const onTerminal = async (env: Record<string, string>, ...args: string[]): Promise<string> => {
        const command = [binary, ...args].join(" ");
        const child = Bun.spawn(["script", "-qec", command, "/dev/null"], {
          cwd: box.host,
          env: box.env({ TERM: "xterm", ...env }),
          stdin: "ignore",
          stdout: "pipe",
        });
        return await new Response(child.stdout).text();
      };
      expect(await onTerminal({}, "backup", "A")).toContain(
        "\u001B[1;37m*** Executing command: \u001B[1;33mbackup\u001B[0m\u001B[1;37m(\u001B[1;35m'A'\u001B[0m",
      );
      for (const [env, ...args] of [[{ NO_COLOR: "1" }], [{ TERM: "dumb" }], [{}, "-n"]] as [
        Record<string, string>,
        string,
      ][]) {
        const text = await onTerminal(env, ...args, "backup");
        expect(text).toContain("*** Executing");
        expect(text).not.toMatch(/\u001B\[[0-9;]*m/);
      }
    });

    test("a reader that closes the pipe is no error", async () => {
      using box = smallSandbox();
      await box.ok(["@create", "G", iso.installerIso, "@run"]);
      expect(await shell(`${binary} -h | head -n 1`, box.host)).toMatch(/^vm /);
      await shell(
        `TMPDIR=${box.tmp} HOME=${box.home} ${binary} @backup @run 2>&1 | head -c 1 >/dev/null`,
        box.host,
      );
      expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
      expect(runNumber(box)).toBe(1);
    });

    test("started through a symlink of a special name it is vm", async () => {
      using box = smallSandbox();
      const odd = join(box.top, "-x ; touch pwned");
      symlinkSync(binary, odd);
      configure(box, "MEMORY=77M\n");
      expect((await box.ok(["-h"], { program: [odd] })).stdout).toContain("[77M]");
    });

    test("only --debug prints the stack of an error", async () => {
      using box = smallSandbox();
      const plain = await box.vm(["restore"]);
      const debug = await box.vm(["--debug", "restore"]);
      expect([plain.status, debug.status]).toEqual([66, 66]);
      expect(debug.stderr.length).toBeGreaterThan(plain.stderr.length);
      expect(debug.stderr).not.toContain(resolve(import.meta.dir, "../.."));
    });

    test("leaves jobs and snapshots of another program in HOSTDIR alone", async () => {
      using box = smallSandbox();
      writeFileSync(box.path("prepare.job"), "echo\n");
      mkdirSync(box.path("backups/.stfolder"), { recursive: true });
      await box.ok(["@create", "G", iso.installerIso, "@backup", "@destroy"]);
      expect(names(box.host)).toEqual(["backups", "guest.env", "prepare.job"]);
      expect(names(box.path("backups"))).toEqual([".stfolder", "LAST", "S0"]);
    });
  },
  ["ldd", "script"],
);
