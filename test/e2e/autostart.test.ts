/** The unit of `autostart`, as systemd reads it, and its commands with a real qemu. */
import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { assemble } from "../guests/assemble.ts";
import { binary, Sandbox, until } from "./harness.ts";
import { configure, shell, suite } from "./tools.ts";

/** Characters that are special for systemd. */
const AWKWARD = String.raw`my vm%i 100% "q" b\s a\\%b $HOME 'x' ж`;

const isUp = (log: string): boolean => existsSync(log) && readFileSync(log, "utf8").includes("STARTED");

/** The argument list in a dump of systemd, which is quoted for a shell. */
async function argvOf(line: string): Promise<string[]> {
  const words = (await shell(`printf '%s\\0' ${line}`, "/")).split("\0").slice(0, -1);
  return words.map((word) => word.replaceAll("$$", "$"));
}

suite(
  "autostart",
  () => {
    test("systemd accepts the unit; its commands start a guest, and shut it down", async () => {
      using box = new Sandbox();
      configure(box, "MEMORY=16M\nCORES=1\nPORT=\nUSENETDEV=\n");
      // In /tmp it would be refused.
      const place = mkdtempSync("/var/tmp/vm-e2e-");
      const hostdir = join(place, AWKWARD);
      mkdirSync(hostdir, { mode: 0o700 });
      const bin = join(box.top, "bin");
      const wants = join(box.home, ".config/systemd/user/default.target.wants");
      mkdirSync(bin, { recursive: true });
      writeFileSync(
        join(bin, "systemctl"),
        `#!/bin/sh\ncase $2 in enable) mkdir -p '${wants}' && ln -s "../$3" '${wants}'/"$3" ;; esac\n`,
        { mode: 0o755 },
      );
      const env = { PATH: `${bin}:${process.env.PATH}` };
      const at = { env, cwd: hostdir, program: [binary] };
      try {
        const image = Buffer.alloc(1 << 20);
        image.set(await assemble(readFileSync(join(import.meta.dir, "../guests/service.asm"), "utf8")));
        writeFileSync(join(place, "service.img"), image);
        await box.ok(["create", "G", "--inplace", "--from=../service.img", "--disk-size=1M"], at);
        await box.ok(["autostart", "on", "--user", "--restart"], at);
        const units = join(box.home, ".config/systemd/user");
        const unit = readdirSync(units).find((name) => name.endsWith(".service"))!;
        const escaped = (await Bun.$`systemd-escape --path ${hostdir}`.quiet().text()).trimEnd();
        expect(unit).toBe(`vm@${escaped}.service`);
        const verify = Bun.$`systemd-analyze --user --man=no verify ${join(units, unit)}`.nothrow().quiet();
        const read = async (level: string): Promise<string> => {
          const { exitCode, stdout, stderr } = await verify.env({
            ...box.env({ XDG_RUNTIME_DIR: box.top }),
            SYSTEMD_LOG_LEVEL: level,
          });
          expect(exitCode, stderr.toString()).toBe(0);
          return `${stdout}${stderr}`;
        };
        const dump = await read("debug");
        const commands = [...dump.matchAll(/^\s*Command Line: (.*)$/gm)].map((match) => match[1]!);
        const [start = [], stop = [], after] = await Promise.all(commands.map(argvOf));
        expect(start).toEqual([binary, "-d", hostdir, "autostart", "start"]);
        expect(stop).toEqual([binary, "-d", hostdir, "autostart", "stop", "--timeout=60"]);
        expect(after).toEqual(stop);
        // As systemd runs them.
        const runtime = join(box.top, "runtime");
        mkdirSync(runtime);
        const service = { env: { ...env, RUNTIME_DIRECTORY: runtime }, cwd: "/" };
        await box.ok(start.slice(1), service);
        const pid = Number(readFileSync(join(runtime, "pid"), "utf8"));
        expect(readFileSync(`/proc/${pid}/comm`, "utf8")).toContain("qemu");
        await until("the guest", () => isUp(join(hostdir, "console.log")));
        process.kill(pid, "SIGKILL");
        await until("qemu's end", () => !existsSync(`/proc/${pid}`));
        expect((await box.vm(stop.slice(1), service)).status).toBe(74);
        await box.ok(start.slice(1), service);
        await until("the guest", () => isUp(join(hostdir, "console.log")));
        await box.ok(stop.slice(1), service);
        expect(readFileSync(join(hostdir, "console.log"), "utf8")).toContain("STOPPED");
      } finally {
        rmSync(place, { recursive: true });
      }
    });
  },
  ["nasm", "systemd-analyze", "systemd-escape"],
);
