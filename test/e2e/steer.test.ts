/** Control of a running guest: its console, its agent, and ssh with a real sshd. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { tameText } from "../../src/lib/text.ts";
import { binary, guests, PATIENCE_SECONDS, until, type Result, type Running } from "./harness.ts";
import {
  configure,
  expectError,
  freePort,
  mode,
  qemuPid,
  shell,
  smallSandbox,
  startUntil,
  suite,
} from "./tools.ts";

/** Packs sshd and qemu-ga of this host with their libraries, a host key and an authorized key. */
const PACK = `
PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/{etc,run/sshd,root/.ssh,usr/sbin,lib64,lib,tmp/dir}
for program in sshd qemu-ga; do
  path=$(command -v $program)
  cp -L "$path" root/usr/sbin/
  ldd "$path" | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} root/
done
ssh-keygen -q -t ed25519 -N "" -f root/etc/host_key
cp "$HOME/.ssh/id_ed25519.pub" root/root/.ssh/authorized_keys
printf '%s\\n' root:x:0:0:root:/root:/bin/sh sshd:x:33:33::/run/sshd:/bin/false >root/etc/passwd
printf '%s\\n' root:x:0: sshd:x:33: >root/etc/group
echo inside >root/tmp/dir/file
printf '%s\\n' 'HostKey /etc/host_key' 'Subsystem sftp internal-sftp' 'StrictModes no' 'SetEnv PATH=/bin:/usr/sbin' >root/etc/sshd_config
tar -C root --owner=0 --group=0 -cf root.tar .
rm -r root
`;

/** The guest's only port is the agent's; udev would name it. */
const AGENT = "qemu-ga -d -m virtio-serial -p /dev/$(ls /sys/class/virtio-ports) -t /run -f /run/ga.pid";

const GUEST = `
tar -C / -xf /in/root.tar
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
/usr/sbin/sshd -f /etc/sshd_config
echo READY
cd /; echo $$ >/run/shell.pid; exec sh -i
`;

suite(
  "a running guest",
  () => {
    // With paths that exceed a socket address, and names with special characters.
    const box = smallSandbox(`${"a long name ".repeat(9)}№1`);
    let running: Running;

    /** Runs the program with input. */
    async function typed(
      input: string | Uint8Array,
      args: readonly string[],
    ): Promise<Result & { bytes: Buffer }> {
      const child = Bun.spawn([binary, ...args], {
        cwd: box.host,
        env: box.env(),
        stdin: Buffer.from(input as string),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [out, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text()]);
      const bytes = Buffer.from(out);
      await child.exited;
      return {
        status: child.exitCode,
        signal: child.signalCode as string | null,
        stdout: bytes.toString(),
        stderr,
        bytes,
      };
    }

    /** Runs a shell line on a terminal of its own; types the answers after their prompts. */
    async function onTerminal(
      line: string,
      answers: readonly [cue: string, answer: string | (() => Promise<unknown>)][],
    ): Promise<string> {
      const child = Bun.spawn(["script", "-qec", line, "/dev/null"], {
        cwd: box.host,
        env: { ...box.env(), TERM: "xterm", VM: binary },
        stdin: "pipe",
        stdout: "pipe",
        stderr: "ignore",
      });
      const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE_SECONDS * 1000);
      const left = [...answers];
      const decoder = new TextDecoder();
      let [shown, from] = ["", 0];
      for await (const piece of child.stdout) {
        shown += decoder.decode(piece, { stream: true });
        while (left[0] && shown.includes(left[0][0], from)) {
          const [cue, answer] = left.shift()!;
          from = shown.indexOf(cue, from) + cue.length;
          if (typeof answer === "string") {
            child.stdin.write(answer);
            child.stdin.flush();
          } else await answer();
        }
      }
      clearTimeout(timer);
      if (left.length > 0) throw new Error(`"${left[0]![0]}" was not shown:\n${shown}`);
      return shown.replaceAll("\r", "");
    }

    beforeAll(async () => {
      const { linuxIso } = await guests();
      const port = await freePort();
      configure(box, `MEMORY=384M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\nINPLACE=1\n`);
      mkdirSync(join(box.home, ".ssh"), { mode: 0o700 });
      await shell(
        `export HOME='${box.home}'; ssh-keygen -q -t ed25519 -N "" -f "$HOME/.ssh/id_ed25519"; ${PACK}`,
        box.host,
      );
      box.write("guest.sh", GUEST);
      await box.ok(["-f", `tcp:127.0.0.1:${port}-:22`, "create", "Guest", linuxIso]);
      for (const args of [["console"], ["exec", "true"], ["ssh"], ["cp", ":/a", "."]])
        expectError(await box.vm(args), 66, /is not running\n {2}start it/);
      expectError(await box.vm(["console", "--log"]), 66, /console\.log does not exist/);
      running = await startUntil(box, ["run"], "READY");
    });
    afterAll(() => box[Symbol.dispose]());

    describe("the console", () => {
      test("--log prints the log, without control characters", async () => {
        await until("a prompt", () => box.console().includes("/ # "));
        const { bytes, status } = await typed("", ["console", "--log"]);
        expect(status).toBe(0);
        expect(bytes.toString()).toBe(tameText(readFileSync(box.path(".work/console.log"), "utf8")));
      });

      test("--follow alone is refused, without changes", async () => {
        expectError(await box.vm(["console", "-f"]), 64, /--follow belongs to --log/);
      });

      test("sends piped input, and prints the answer", async () => {
        const { stdout, status } = await typed("echo $((20+22)) answers\n", ["console"]);
        expect(status).toBe(0);
        expect(stdout).toContain("\n42 answers\r\n");
      });

      test("transmits bytes that are not UTF-8 in both directions", async () => {
        const line = "printf '\\303\\050\\377'; head -c 3 | od -An -tx1\n";
        const { bytes } = await typed(Buffer.from(`${line}\xe4\xff\n`, "latin1"), ["console"]);
        expect(bytes.includes(Buffer.from([0xc3, 0x28, 0xff]))).toBe(true);
        expect(bytes.toString("latin1")).toContain(" e4 ff 0a");
      });

      test("on a terminal: Ctrl-C goes to the guest, Ctrl-] detaches; reports a second client", async () => {
        const shown = await onTerminal('stty -g; "$VM" console; echo "status $?"; stty -g', [
          ["Ctrl-] disconnects", "sh -c 'echo $((6*7)) seconds; exec sleep 1000'\r"],
          ["42 seconds", "\u0003"],
          ["/ # ", "echo $((1+1)) is two\r"],
          [
            "2 is two",
            async () => expectError(await box.vm(["console"]), 75, /another process is connected to it/),
          ],
          ["/ # ", "\u001D"],
        ]);
        expect(shown).toContain("disconnected from the console; the guest keeps running\nstatus 0\n");
        const [before, after] = shown.match(/^[0-9a-f]+(:[0-9a-f]+){8,}$/gm)!;
        expect(after).toBe(before!);
      });

      test("a signal restores the terminal", async () => {
        const line = `stty -g; sh -c 'echo $$ >pid; exec "$VM" console'; echo "status $?"; stty -g`;
        const shown = await onTerminal(line, [
          ["Ctrl-] disconnects", async () => process.kill(Number(box.read("pid")), "SIGTERM")],
        ]);
        expect(shown).toContain("status 143");
        const [before, after] = shown.match(/^[0-9a-f]+(:[0-9a-f]+){8,}$/gm)!;
        expect(after).toBe(before!);
      });

      test("ends when its reader closes the pipe, with the next output", async () => {
        const line = `HOME='${box.home}' '${binary}' console --log -f 2>/dev/null | head -c 5 | wc -c`;
        const counted = shell(line, box.host);
        let over = false;
        void counted.then(() => (over = true));
        await until("its end", async () => (await typed("echo more\n", ["console"])) && over);
        expect(await counted).toBe("5\n");
      });
    });

    describe("ssh", () => {
      const ours = join(homedir(), ".ssh/known_hosts");
      const before = existsSync(ours) ? readFileSync(ours, "utf8") : "";

      test("a command, its output and status; the host key is stored with the VM", async () => {
        const result = await box.vm(["ssh", "echo out; echo err >&2; exit 7"]);
        expect(result.stdout).toBe("out\n");
        expect(result.stderr).toContain("err\n");
        expect(result.stderr).not.toMatch(/^vm: /m);
        expect(result.status).toBe(7);
        expect(box.read(".work/known_hosts")).toStartWith("guest ssh-ed25519 ");
        expect(mode(box.path(".work/known_hosts"))).toBe("600");
        expect(existsSync(ours) ? readFileSync(ours, "utf8") : "").toBe(before);
      });

      test("passes words and options for ssh, and stdin, unchanged", async () => {
        expect((await box.ok(["ssh", "echo", "-a", "@run"])).stdout).toBe("-a @run\n");
        expect((await box.ok(["ssh", "--", "-o", "LogLevel=ERROR", "id", "-un"])).stdout).toBe("root\n");
        expect((await typed("\u00E4 line\n", ["ssh", "cat"])).stdout).toBe("\u00E4 line\n");
      });

      test("a login on the terminal", async () => {
        const shown = await onTerminal('"$VM" ssh', [
          ["# ", "tty; exit 5\r"],
          ["/dev/pts/", ""],
        ]);
        expect(shown).toMatch(/^\/dev\/pts\/\d+$/m);
      });

      test("another key: ssh's own warning, status 255, and a hint", async () => {
        const file = join(box.work, "known_hosts");
        await shell(
          `ssh-keygen -q -t ed25519 -N "" -f other; echo "guest $(cat other.pub)" >.work/known_hosts`,
          box.host,
        );
        const result = await box.vm(["ssh", "true"]);
        expect(result.status).toBe(255);
        expect(result.stderr).toContain("REMOTE HOST IDENTIFICATION HAS CHANGED");
        expect(result.stderr).toContain(`rm '${file}'`);
        rmSync(file);
        await box.ok(["ssh", "true"]);
      });

      test("cp in both directions", async () => {
        const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 251));
        writeFileSync(box.path("with: colon"), bytes);
        await box.ok(["cp", "with: colon", ":/tmp/dir/"]);
        await box.ok(["cp", "-r", ":/tmp/dir", "back"]);
        expect(readFileSync(box.path("back/with: colon")).equals(bytes)).toBe(true);
        expect(box.read("back/file")).toBe("inside\n");
        const failed = await box.vm(["cp", ":/tmp/nothing", "."]);
        expect(failed.status).toBe(1);
        expect(failed.stderr).toContain("No such file");
        expectError(await box.vm(["cp", "a", "b"]), 64, /no path is in the guest/);
      });
    });

    describe("exec", () => {
      test("no agent: reports at once what is missing", async () => {
        expectError(await box.vm(["exec", "true"]), 69, /no guest agent.*\n.*qemu-guest-agent/);
        await box.ok(["ssh", AGENT]);
        await until("the agent", async () => (await box.vm(["exec", "true"])).status === 0);
      });

      test("arguments unchanged, both outputs, the status", async () => {
        const result = await box.vm([
          "exec",
          "--",
          "sh",
          "-c",
          'printf "%s|" "$@"; echo err >&2; exit 3',
          "-",
          "a b",
          "$HOME",
          "",
        ]);
        expect(result.stdout).toBe("a b|$HOME||");
        expect(result.stderr).toEndWith("err\n");
        expect(result.status).toBe(3);
      });

      test("input and output are bytes", async () => {
        const input = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7) % 256));
        const { bytes, status } = await typed(input, ["exec", "cat"]);
        expect(status).toBe(0);
        expect(bytes.equals(input)).toBe(true);
      });

      test("several at once: each gets its turn", async () => {
        const words = ["one", "two", "three", "four", "five"];
        const all = await Promise.all(words.map((word) => box.vm(["exec", "echo", word])));
        expect(all.map(({ status, stdout }) => [status, stdout])).toEqual(
          words.map((word) => [0, `${word}\n`]),
        );
      });

      test("a signal, and a missing program", async () => {
        expect((await box.vm(["exec", "--", "sh", "-c", "kill -9 $$"])).status).toBe(137);
        expectError(
          await box.vm(["exec", "nothing"]),
          66,
          /cannot run nothing: no such program in the guest/,
        );
      });

      test("an agent that hangs: reported in 3 s; its late answer is discarded", async () => {
        await box.ok(["ssh", "kill -STOP $(pidof qemu-ga)"]);
        expectError(await box.vm(["exec", "true"]), 69, /no guest agent answers/);
        await box.ok(["ssh", "kill -CONT $(pidof qemu-ga)"]);
        expect((await box.ok(["exec", "echo", "here"])).stdout).toBe("here\n");
      });

      test("two at a time; a time limit kills the guest's program", async () => {
        const long = box.start(["--timeout=4", "exec", "sleep", "1234"]);
        await until("it runs", async () => (await box.vm(["exec", "pidof", "sleep"])).status === 0);
        expectError(await long.done, 124, /sleep did not end within 4 s/);
        await until("its end", async () => (await box.vm(["exec", "pidof", "sleep"])).status === 1);
      });

      test("Ctrl-C kills it there, too", async () => {
        const long = box.start(["exec", "sleep", "4321"]);
        await until("it runs", async () => (await box.vm(["exec", "pidof", "sleep"])).status === 0);
        long.kill("SIGINT");
        expect((await long.done).status).toBe(130);
        await until("its end", async () => (await box.vm(["exec", "pidof", "sleep"])).status === 1);
      });
    });

    test("followers end when the guest is off; the log is kept", async () => {
      const follow = box.start(["console", "--log", "-f"]);
      const silent = box.start(["console"]);
      const cut = box.start(["exec", "sleep", "1000"]);
      // A pipe that stays open.
      const open = Bun.spawn([binary, "exec", "sleep", "1000"], {
        cwd: box.host,
        env: box.env(),
        stdin: "pipe",
        stderr: "ignore",
      });
      // Printed for a while, as the listener cannot be observed from outside.
      const words = "for i in $(seq 25); do echo GOOD BYE >/dev/ttyS0; usleep 200000; done";
      await box.ok(["ssh", `${words}; kill -HUP $(cat /run/shell.pid)`]);
      const results = await Promise.all([running.done, follow.done, silent.done]);
      expect(results.map(({ status }) => status)).toEqual([0, 0, 0]);
      for (const { stdout } of results.slice(1)) expect(stdout).toContain("GOOD BYE");
      expect(results[1]!.stdout).toContain("READY");
      expectError(
        await cut.done,
        74,
        /the guest agent exited, was restarted, or ended with the guest|connection to the guest agent closed/,
      );
      open.kill("SIGINT");
      expect(await open.exited).toBe(130);
      expect((await box.ok(["console", "--log", "-f"])).stdout).toContain("GOOD BYE");
    });

    test("a guest without listeners or forwards; its qemu is killed", async () => {
      using deaf = smallSandbox();
      await deaf.ok(["create", "Deaf", (await guests()).hangIso]);
      const run = await startUntil(deaf, ["run"], "HANGING");
      expectError(await deaf.vm(["ssh"]), 69, /no port of this host is forwarded.*\n.*vm forward add/);
      expectError(await deaf.vm(["exec", "true"]), 69, /no guest agent/);
      const line = "HOME=$1 TMPDIR=$2; export HOME TMPDIR; yes | head -c 100 | $3 console; echo $?";
      const child = Bun.spawnSync(["sh", "-c", line, "-", deaf.home, deaf.tmp, binary], { cwd: deaf.host });
      expect(child.stdout.toString()).toBe("74\n");
      expect(child.stderr.toString()).toContain("nothing in the guest reads the console");
      const follow = deaf.start(["console", "--log", "-f"]);
      process.kill(await qemuPid(deaf), "SIGKILL");
      expect((await run.done).status).toBe(74);
      expect(await follow.done).toMatchObject({ status: 0, stdout: expect.stringContaining("HANGING") });
    });
  },
  ["qemu-ga", "sshd", "ssh", "ssh-keygen", "scp", "script"],
);
