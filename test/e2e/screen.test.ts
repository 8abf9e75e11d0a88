/** Screenshots, and real viewers by SPICE and VNC, on ports, sockets and TLS. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { binary, guests, until, type Running, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  freePort,
  listeners,
  mode,
  names,
  qemuPid,
  shell,
  smallSandbox,
  startUntil,
  suite,
  untilQuiet,
} from "./tools.ts";
import {
  Desktop,
  difference,
  qmp,
  readPng,
  spicePicture,
  untilSeen,
  viewersOf,
  vncPicture,
  type Picture,
} from "./viewers.ts";

let iso: Guests;
let desktop: Desktop;

/** A VM that hangs with a text on its screen, and the port of its display. */
async function hanging(settings: string, ...options: string[]): Promise<{ box: Sandbox; run: Running }> {
  const box = smallSandbox();
  configure(box, `MEMORY=64M\nCORES=1\nDISKS=AHCI=16M\n${settings}\n`);
  await box.ok(["create", "G", iso.hangIso]);
  const run = await startUntil(box, [...options, "run"], "HANGING");
  return { box, run };
}

const secretOf = (box: Sandbox): string => box.read(".work/spice.password");

/** `vm view` in a desktop session: connects, and ends with its viewer. */
async function expectView(box: Sandbox): Promise<void> {
  const view = box.start(["view"], { env: { DISPLAY: desktop.name } });
  await untilSeen(box);
  const viewer = (await box.leftovers()).find((line) => line.includes("remote-viewer "))!;
  for (const word of [secretOf(box), "password"]) expect(viewer).not.toContain(word);
  process.kill(Number.parseInt(viewer, 10), "SIGTERM");
  await view.done;
  await until("the viewer has gone", async () => (await viewersOf(box)) === 0);
}

/** spice-gtk's SPICE_CHANNEL_ERROR_AUTH. */
const SPICE_REFUSED = /main channel event: 23/;

/** remote-viewer with an invalid file: reports it, and does not connect. */
async function expectRefused(
  box: Sandbox,
  file: string,
  change: [RegExp, string],
  why: RegExp,
): Promise<void> {
  const wrong = join(box.top, "wrong.vv");
  const text = box.read(".work", file);
  expect(text).toMatch(change[0]);
  writeFileSync(wrong, text.replace(...change));
  const viewer = Bun.spawn(["bash", "-c", 'exec remote-viewer --debug "$1" 2>&1', "-", wrong], {
    env: box.env({ DISPLAY: desktop.name }),
    stdio: ["ignore", "pipe", "ignore"],
    timeout: 30_000,
  });
  let said = "";
  const decoder = new TextDecoder();
  for await (const piece of viewer.stdout) {
    said += decoder.decode(piece, { stream: true });
    if (!why.test(said)) continue;
    expect(await viewersOf(box)).toBe(0);
    viewer.kill("SIGKILL");
  }
  expect(said).toMatch(why);
}

/** The port in the viewer's connection file. */
const portOf = (box: Sandbox, file = "vnc.vv"): string => /^port=(\d+)$/m.exec(box.read(".work", file))![1]!;

const isPicture = (seen: Picture | string): Picture => {
  if (typeof seen === "string") throw new Error(seen);
  return seen;
};

suite(
  "the screen",
  () => {
    beforeAll(async () => {
      iso = await guests();
      desktop = await Desktop.start();
    });
    afterAll(() => desktop[Symbol.dispose]());

    describe("screenshot", () => {
      let box: Sandbox;
      beforeAll(async () => {
        ({ box } = await hanging("PORT="));
      });
      afterAll(() => box[Symbol.dispose]());

      test("writes a PNG to a new name, with the caller's umask; leaves nothing in WORKDIR", async () => {
        const before = names(box.work);
        const { stdout } = await box.ok(["screenshot"]);
        expect(stdout).toMatch(/^.*\/vm1\/G-\d{8}-\d{6}\.png\n$/);
        const umask = process.umask();
        expect(mode(stdout.trim())).toBe((0o666 & ~umask).toString(8));
        const { width, height, pixels } = readPng(readFileSync(stdout.trim()));
        expect(width).toBeGreaterThanOrEqual(640);
        expect(height).toBeGreaterThanOrEqual(350);
        expect(pixels.some((byte) => byte > 100)).toBe(true);
        expect(names(box.work)).toEqual(before);
      });

      test("- is stdout", async () => {
        const before = names(box.host);
        const png = await Bun.$`${binary} screenshot -`.cwd(box.host).env(box.env()).quiet();
        expect(readPng(png.stdout).width).toBeGreaterThanOrEqual(640);
        expect(names(box.host)).toEqual(before);
      });

      test("several at once: each gets its turn at the monitor", async () => {
        const all = await Promise.all(
          Array.from({ length: 8 }, (_, index) => box.vm(["screenshot", `many-${index}.png`])),
        );
        expect(all.map(({ status, stderr }) => (status === 0 ? 0 : stderr))).toEqual(all.map(() => 0));
      });

      test("replaces a file atomically, also behind a symlink; its other hard links keep the old one", async () => {
        const file = box.write("old.png", "old");
        chmodSync(file, 0o640);
        linkSync(file, box.path("other.png"));
        symlinkSync("old.png", box.path("link.png"));
        await box.ok(["screenshot", "link.png"]);
        expect(lstatSync(box.path("link.png")).isSymbolicLink()).toBe(true);
        expect(readPng(readFileSync(file)).width).toBeGreaterThan(0);
        expect(mode(file)).toBe("640");
        expect(box.read("other.png")).toBe("old");
      });

      test("does not touch a file that is not regular: 73", async () => {
        mkdirSync(box.path("dir.png"));
        await shell("mkfifo fifo.png", box.host);
        for (const name of ["dir.png", "fifo.png", "/dev/null"])
          expectError(await box.vm(["screenshot", name]), 73, /not a regular file/);
        expectError(await box.vm(["screenshot", "none/x.png"]), 66, /no such directory/);
      });

      test("--show: only in a terminal that supports it", async () => {
        expectError(await box.vm(["screenshot", "--show"]), 69, /stdout is not a terminal/);
        const before = names(box.host);
        const inTerminal = (env: Record<string, string>): Promise<string> =>
          Bun.$`script -qec ${`'${binary}' screenshot --show`} /dev/null`
            .cwd(box.host)
            .env(box.env(env))
            .nothrow()
            .quiet()
            .text();
        expect(await inTerminal({ TERM: "xterm-kitty" })).toMatch(/\x1b_Ga=T,f=100,q=2,m=[01];iVBORw0KGgo/);
        expect(await inTerminal({ TERM_PROGRAM: "iTerm.app" })).toMatch(
          /\x1b\]1337;File=inline=1;size=\d+:iVBORw0KGgo/,
        );
        expect(await inTerminal({ TERM: "xterm" })).toContain("kitty, Ghostty");
        expect(names(box.host)).toEqual(before);
      });

      test("view: without a display there is nothing to view", async () => {
        expectError(await box.vm(["view"]), 69, /without a display/);
      });
    });

    test("of a VM that is off: 66; of one without a graphics card: 69", async () => {
      using box = smallSandbox();
      await box.ok(["create", "G", iso.hangIso]);
      for (const command of ["screenshot", "view"]) expectError(await box.vm([command]), 66, /not running/);
      const { box: other, run } = await hanging("PORT=");
      using _other = other;
      const script = box.write("run.sh", other.read(".work/run-vm.sh"));
      run.kill("SIGKILL");
      await run.done;
      await untilQuiet(other);
      await shell(`sed -i "s/VGA,id=vga0/pci-testdev/" run.sh`, box.host);
      const log = join(other.work, "console.log");
      // It has the output of the first run.
      rmSync(log);
      const qemu = Bun.spawn(["bash", script], { cwd: other.work, stdio: ["ignore", "ignore", "ignore"] });
      await until("the guest", () => existsSync(log) && other.console().includes("HANGING"));
      expectError(await other.vm(["screenshot"]), 69, /no graphics card/);
      qemu.kill("SIGKILL");
    });

    test("SPICE on a port: the same picture, only with the password", async () => {
      const { box } = await hanging("", `--port=${await freePort()}`);
      using _box = box;
      const port = portOf(box, "spice.vv");
      const at = ["--host=localhost", `--port=${port}`];
      const seen = isPicture(await spicePicture(box, at, secretOf(box)));
      await box.ok(["screenshot", "own.png"]);
      expect(difference(seen, readPng(readFileSync(box.path("own.png"))))).toBeLessThan(0.01);
      expect(await spicePicture(box, at, "wrong")).toMatch(SPICE_REFUSED);
      await expectView(box);
      await expectRefused(box, "spice.vv", [/^password=.*$/m, "password=wrong"], /auth/i);
      rmSync(join(box.work, "spice.vv"));
      const { stdout } = await box.ok(["view"], { env: { USER: "me" } });
      expect(stdout).toContain(`locally: remote-viewer ${box.work}/spice.vv\n`);
      expect(stdout).toMatch(new RegExp(`ssh -L ${port}:localhost:${port} me@\\S+\n`));
      expect(mode(join(box.work, "spice.vv"))).toBe("600");
      await expectView(box);
    });

    test("SPICE_SOCKET: no port", async () => {
      const { box, run } = await hanging("SPICE_SOCKET=1");
      using _box = box;
      const socket = join(box.work, "spice.sock");
      expect(listeners(await qemuPid(box))).toEqual([]);
      expect(mode(socket)).toMatch(/^[67]00$/);
      expect(run.stderr()).toMatch(new RegExp(`ssh -L 5900:${socket} `));
      const at = [`--uri=spice+unix://${socket}`];
      isPicture(await spicePicture(box, at, secretOf(box)));
      expect(await spicePicture(box, at, "wrong")).toMatch(SPICE_REFUSED);
      await expectView(box);
      await expectRefused(box, "spice.vv", [/^password=.*$/m, "password=wrong"], /auth/i);
      rmSync(join(box.work, "spice.vv"));
      await expectView(box);
    });

    test("SPICE_TLS_DIR: encrypted, and verified by its certificate", async () => {
      const port = await freePort();
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nCORES=1\nDISKS=AHCI=16M\nSPICE_TLS_DIR=~/tls\n");
      await box.ok(["create", "G", iso.hangIso]);
      expectError(await box.vm([`-p${port}`, "run"]), 66, /SPICE_TLS_DIR: cannot read .*server-key.pem/);
      await shell(CERTIFICATES, box.home);
      await startUntil(box, [`-p${port}`, "run"], "HANGING");
      expect(box.read(".work/spice.vv")).toContain(`\ntls-port=${port}\n`);
      const at = ["--host=localhost", `--port=${port}`];
      expect(typeof (await spicePicture(box, at, secretOf(box)))).toBe("string");
      await expectView(box);
      await expectRefused(
        box,
        "spice.vv",
        [/^host-subject=.*$/m, "host-subject=O=vm,CN=other"],
        /certificate|verif/i,
      );
      const other = readFileSync(join(box.home, "other/ca-cert.pem"), "utf8").replaceAll("\n", "\\n");
      await expectRefused(box, "spice.vv", [/^ca=.*$/m, `ca=${other}`], /certificate|verif/i);
      await expectRefused(box, "spice.vv", [/^password=.*$/m, "password=wrong"], /auth/i);
      rmSync(join(box.work, "spice.vv"));
      await expectView(box);
    });

    test("VNC on a port: a password of eight characters", async () => {
      const port = await freePort();
      const { box, run } = await hanging("DISPLAY_PROTOCOL=vnc", `--port=${port}`);
      using _box = box;
      expect(secretOf(box)).toHaveLength(8);
      expect(run.stderr()).toContain(`VNC on localhost:${port}`);
      expect(box.read(".work/run-vm.sh")).not.toContain(secretOf(box));
      const display = `localhost:${port - 5900}`;
      const { width, height } = readPng(
        (await Bun.$`${binary} screenshot -`.cwd(box.host).env(box.env()).quiet()).stdout,
      );
      expect(await vncPicture(box, display, secretOf(box))).toBe(`${width}x${height}`);
      expect(await vncPicture(box, display, "wrong")).toMatch(/auth/i);
      await expectView(box);
      await expectRefused(box, "vnc.vv", [/^password=.*$/m, "password=wrong"], /auth/i);
      rmSync(join(box.work, "vnc.vv"));
      await expectView(box);
    });

    test("VNC on a socket, as through a tunnel", async () => {
      const { box, run } = await hanging("DISPLAY_PROTOCOL=vnc\nSPICE_SOCKET=1\nSPICE_PASSWORD=123456789");
      using _box = box;
      expect(run.stderr()).toMatch(/VNC uses only the first 8 characters/);
      expect(listeners(await qemuPid(box))).toEqual([]);
      const { stdout } = await box.ok(["view"], { env: { DISPLAY: desktop.name } });
      expect(stdout).toContain(`ssh -L 5900:${box.work}/vnc.sock `);
      expect((await qmp(box, "query-vnc")).auth).toBe("vnc");
      using tunnel = await openTunnel(join(box.work, "vnc.sock"));
      const display = `localhost:${tunnel.port - 5900}`;
      expect(await vncPicture(box, display, "12345678")).toMatch(/^\d+x\d+$/);
      expect(await vncPicture(box, display, "1234567x")).toMatch(/auth/i);
    });

    test("selects VNC's port like SPICE's", async () => {
      const { box } = await hanging("DISPLAY_PROTOCOL=vnc\nSPICE_TLS_DIR=/none");
      using _first = box;
      const { box: second, run } = await hanging("DISPLAY_PROTOCOL=vnc");
      using _second = second;
      // The next one, if no other test takes or frees ports meanwhile.
      expect(portOf(second)).not.toBe(portOf(box));
      run.kill("SIGKILL");
      await run.done;
      await untilQuiet(second);
      const taken = await second.vm(["-p", portOf(box), "run"]);
      expectError(taken, 75, new RegExp(`the VNC port ${portOf(box)} is taken by qemu-system-x86`));
    });

    test("run opens a viewer in a desktop session, and ends it with the guest", async () => {
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nCORES=1\nDISKS=AHCI=16M\n");
      await box.ok(["create", "G", iso.hangIso]);
      const run = await startUntil(box, ["run"], "HANGING", { env: { DISPLAY: desktop.name } });
      await untilSeen(box);
      await qmp(box, "quit");
      expect((await run.done).status).toBe(74);
      expect(await box.leftovers()).toEqual([]);
      // Before the viewer is connected.
      await box.ok(["run", iso.haltIso], { env: { DISPLAY: desktop.name } });
    });

    test("reports errors before anything starts", async () => {
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nDISKS=AHCI=16M\nDISPLAY_PROTOCOL=vnc\n");
      await box.ok(["create", "G", iso.haltIso]);
      expectError(await box.vm(["-p", "5899", "run"]), 64, /VNC cannot listen on port 5899/);
      configure(box, "MEMORY=64M\nDISKS=AHCI=16M\nDISPLAY_PROTOCOL=none\n");
      box.write(".work/guest.env", box.read(".work/guest.env").replace(/^DISPLAY_PROTOCOL=.*$/m, ""));
      const { stderr } = await box.ok(["run"]);
      expect(stderr).toContain("without a display");
    });

    test("a socket with too long a path: 78", async () => {
      using box = smallSandbox("x".repeat(90));
      configure(box, "MEMORY=64M\nDISKS=AHCI=16M\nSPICE_SOCKET=1\n");
      await box.ok(["--inplace", "create", "G", iso.haltIso]);
      expectError(await box.vm(["run"]), 78, /SPICE_SOCKET: the path is too long/);
    });

    test("a qemu without SPICE: what to install, and alternatives", async () => {
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nDISKS=AHCI=16M\n");
      const bin = join(box.top, "bin");
      mkdirSync(bin);
      // The real one, except for its answer about SPICE.
      const filter = `[[ " $* " != *" none "*" stdio "* ]] || exec ${Bun.which("qemu-system-x86_64")} "$@" > >(sed '/"option": "spice"/s/password-secret/none/')`;
      writeFileSync(
        join(bin, "qemu-system-x86_64"),
        `#!/bin/bash\n${filter}\nexec ${Bun.which("qemu-system-x86_64")} "$@"\n`,
        { mode: 0o755 },
      );
      const env = { PATH: `${bin}:${process.env.PATH}` };
      await box.ok(["create", "G", iso.haltIso], { env });
      const result = await box.vm(["run"], { env });
      expectError(result, 69, /this qemu does not support SPICE/);
      for (const word of [
        "ALT",
        "qemu-system-modules-spice",
        "Fedora",
        "Arch",
        "DISPLAY_PROTOCOL=vnc",
        "-p ''",
      ])
        expect(result.stderr).toContain(word);
      expect(existsSync(box.path(".work/spice.vv"))).toBe(false);
      await box.ok(["-p", "", "run"], { env });
    });
  },
  ["Xvfb", "openssl", "remote-viewer", "script", "spicy-screenshot", "vncsnapshot"],
);

/** A CA and a server certificate for another name than localhost; another CA of the same name. */
const CERTIFICATES = `
mkdir tls other
for dir in tls other; do
  openssl req -x509 -newkey rsa:2048 -nodes -keyout $dir/ca-key.pem -out $dir/ca-cert.pem -days 2 -subj /O=vm/CN=ca
done
openssl req -newkey rsa:2048 -nodes -keyout tls/server-key.pem -out request.pem -subj '/O=vm, Ltd/CN=far.example'
openssl x509 -req -in request.pem -CA tls/ca-cert.pem -CAkey tls/ca-key.pem -CAcreateserial -days 2 -out tls/server-cert.pem
`;

/** Like `ssh -L PORT:SOCKET`, without ssh. */
async function openTunnel(socket: string): Promise<Disposable & { port: number }> {
  const server = createServer((home) => {
    const far = connect(socket);
    for (const end of [home, far]) end.on("error", () => {});
    home.pipe(far).pipe(home);
  });
  await once(server.listen(0, "localhost"), "listening");
  return { port: (server.address() as AddressInfo).port, [Symbol.dispose]: () => void server.close() };
}
