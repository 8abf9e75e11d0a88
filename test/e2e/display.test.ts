/** SPICE and forwarded ports: listeners, access, and taken ports. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { guests, type Running, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  freePort,
  holdPort,
  listeners,
  listing,
  mode,
  qemuPid,
  shell,
  smallSandbox,
  startUntil,
  suite,
  type HeldPort,
} from "./tools.ts";

let iso: Guests;

/** A new VM with the default display. */
async function made(more = ""): Promise<Sandbox> {
  const box = smallSandbox();
  configure(box, `MEMORY=64M\nCORES=1\nDISKS=AHCI=16M\n${more}`);
  await box.ok(["create", "G", iso.hangIso]);
  return box;
}

const hanging = (box: Sandbox, ...options: string[]): Promise<Running> =>
  startUntil(box, [...options, "run"], "HANGING");

/** A value from the viewer's connection file. */
const viewer = (box: Sandbox, key: string): string =>
  new RegExp(`^${key}=(.*)$`, "m").exec(box.read(".work/spice.vv"))?.[1] ?? "";

/** The kernel's format of 127.0.0.N:port. */
const loopback = (last: number, port: number): string =>
  `0${last}00007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;

/** Takes port 5900, unless another process has it already. */
const holdDefaultPort = (): Promise<HeldPort | undefined> => holdPort(5900).catch(() => undefined);

suite(
  "display and ports",
  () => {
    beforeAll(async () => {
      iso = await guests();
    });

    test("the default port 5900 is taken: the next free port, on loopback only", async () => {
      using held = await holdDefaultPort();
      using box = await made();
      const run = await hanging(box);
      const port = Number(viewer(box, "port"));
      expect(port).toBeGreaterThan(held ? held.port : 5900);
      expect(listeners(await qemuPid(box))).toEqual([loopback(1, port)]);
      expect(run.stderr()).toContain(`localhost:${port}`);
      expect(run.stderr()).toMatch(/remote-viewer /);
      using second = await made();
      await hanging(second);
      expect(Number(viewer(second, "port"))).not.toBe(port);
    });

    test("the password: only in files of mode 0600, different each time", async () => {
      using box = await made();
      let run = await hanging(box);
      const password = viewer(box, "password");
      expect(password.length).toBeGreaterThanOrEqual(8);
      for (const name of ["spice.password", "spice.vv"]) expect(mode(join(box.work, name))).toBe("600");
      expect(await Bun.$`ps axeww`.quiet().text()).not.toContain(password);
      expect(box.read(".work/run-vm.sh")).not.toContain("disable-ticketing");
      for (const text of [box.read(".work/run-vm.sh"), run.stderr()]) expect(text).not.toContain(password);
      run.kill("SIGKILL");
      await run.done;
      using other = await made();
      run = await hanging(other);
      expect(viewer(other, "password")).not.toBe(password);
    });

    test("a password of the user", async () => {
      using box = await made("SPICE_PASSWORD='my \"secret\" №1, 100%'\n");
      const run = await hanging(box);
      expect(viewer(box, "password")).toBe('my "secret" №1, 100%');
      expect(await Bun.$`ps axww`.quiet().text()).not.toContain('my "secret"');
      expect(run.stderr()).not.toContain("secret");
    });

    test("a backslash in it is escaped for a key file", async () => {
      using box = await made(String.raw`SPICE_PASSWORD='a\sb'`);
      await hanging(box);
      expect(viewer(box, "password")).toBe(String.raw`a\\sb`);
      expect(box.read(".work/spice.password")).toBe(String.raw`a\sb`);
    });

    test("the connection file is removed afterwards; the password is kept for run-vm.sh", async () => {
      using box = await made();
      await box.ok(["run", iso.haltIso]);
      expect(existsSync(box.path(".work/spice.vv"))).toBe(false);
      expect(mode(box.path(".work/spice.password"))).toBe("600");
    });

    test("PORT= : listens on no port", async () => {
      using box = await made();
      const run = await hanging(box, "--port=");
      expect(listeners(await qemuPid(box))).toEqual([]);
      expect(run.stderr()).toMatch(/without a display/);
      expect(box.read(".work/run-vm.sh")).not.toContain("-spice");
      expect(existsSync(box.path(".work/spice.vv"))).toBe(false);
    });

    test("uses HOST and PORT", async () => {
      using box = await made();
      const port = await freePort();
      await hanging(box, "--host=127.0.0.2", `--port=${port}`);
      expect(listeners(await qemuPid(box))).toEqual([loopback(2, port)]);
      expect(viewer(box, "host")).toBe("127.0.0.2");
    });

    test("stores HOST and PORT given to create", async () => {
      using box = smallSandbox();
      const port = await freePort();
      await box.ok(["-H", "127.0.0.2", "-p", String(port), "create", "G", iso.hangIso]);
      await hanging(box);
      expect(listeners(await qemuPid(box))).toEqual([loopback(2, port)]);
    });

    test("a chosen SPICE port that is taken: 75, naming the process", async () => {
      using held = await holdPort();
      using box = await made();
      const before = listing(box.host);
      const holder = readFileSync("/proc/self/comm", "utf8").trim();
      const result = await box.vm([`--port=${held.port}`, "run"]);
      expectError(result, 75, new RegExp(`SPICE port ${held.port} .*${holder} \\(pid ${process.pid}\\)`));
      expect(listing(box.host)).toEqual(before);
      configure(box, `PORT=${held.port}\n`);
      box.write(".work/guest.env", box.read(".work/guest.env").replace(/^PORT=.*$/m, `PORT="${held.port}"`));
      expectError(await box.vm(["run"]), 75, /SPICE port/);
    });

    test("a port that another VM uses is named with that VM's qemu", async () => {
      using first = await made();
      await hanging(first);
      using second = await made();
      const port = viewer(first, "port");
      expectError(await second.vm(["-p", port, "run"]), 75, /taken by qemu-system-x86.*\(pid \d+\)/);
    });

    test.each(["tcp::PORT-:22", "hostfwd=tcp:127.0.0.1:PORT-10.0.2.15:22"])(
      "the forward %s with a taken port: 75",
      async (rule) => {
        using held = await holdPort();
        using box = await made("PORT=\n");
        const result = await box.vm(["-f", rule.replace("PORT", String(held.port)), "run"]);
        expectError(result, 75, new RegExp(`port ${held.port} is taken by .*\\(pid ${process.pid}\\)`));
        expect(await box.leftovers()).toEqual([]);
      },
    );

    test("refuses equal ports of a forward and of SPICE", async () => {
      using box = await made();
      const port = await freePort();
      const result = await box.vm(["-p", String(port), "-f", `tcp:127.0.0.1:${port}-:22`, "run"]);
      expectError(result, 75, new RegExp(String(port)));
    });

    test("the default port does not collide with a forward", async () => {
      using box = await made();
      const run = await hanging(box, "-f", "tcp:127.0.0.1:5900-:22").catch((error: Error) => error);
      // Another process may have port 5900 on this machine: then the forward fails.
      if (run instanceof Error) expect(run.message).toContain("5900 is taken");
      else expect(viewer(box, "port")).not.toBe("5900");
    });

    test("SPICE_TICKETING=off: no password, on loopback only", async () => {
      using box = await made("SPICE_TICKETING=off\n");
      const port = await freePort();
      expectError(await box.vm(["-H", "0.0.0.0", `-p${port}`, "run"]), 78, /SPICE_TICKETING/);
      await hanging(box, `-p${port}`);
      expect(box.read(".work/run-vm.sh")).toContain("disable-ticketing=on");
      expect(await shell("cat spice.vv", box.work)).not.toContain("password");
    });
  },
  ["ps"],
);
