/** What confines qemu: a stand-in for it tries what it must not do. */
import { expect, test } from "bun:test";
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binary, Sandbox, until } from "./harness.ts";
import { ATTEMPTS, intruder } from "./jail-intruder.ts";
import {
  configure,
  isRoot,
  qemuPid,
  rootTest,
  shell,
  smallSandbox,
  startUntil,
  suite,
  untilQuiet,
} from "./tools.ts";

/** No name of a user: any other than root's. */
const PLAIN_UID = 61_234;

/** A VM, another one, and what else an intruder may want. Its programs run as a user. */
class House implements Disposable {
  readonly box = new Sandbox();
  readonly #listeners: { stop(): void }[] = [];
  readonly #as: string[];

  constructor(readonly uid: number) {
    const program = join(this.box.top, "vm");
    cpSync(binary, program);
    chmodSync(program, 0o755);
    this.#as = [
      // A descriptor that the caller has open, and not for others.
      "bash",
      "-c",
      `exec 99<"$0"; exec "$@"`,
      join(this.box.home, ".ssh/id_ed25519"),
      ...(uid === process.getuid!()
        ? []
        : ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"]),
      program,
    ];
  }

  async prepare(): Promise<void> {
    const { box, uid } = this;
    mkdirSync(join(box.home, ".ssh"));
    writeFileSync(join(box.home, ".ssh/id_ed25519"), "key", { mode: 0o600 });
    configure(box, "JAIL=auto\nMEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=1M)\nUSENETDEV=\nSHARES=()\n");
    const other = join(box.top, "other");
    mkdirSync(other);
    const abstract = `intruder-${process.pid}-${uid}`;
    const listen = (unix: string): void =>
      void this.#listeners.push(Bun.listen({ unix, socket: { data() {} } }));
    listen(join(box.home, "agent"));
    listen(`\0${abstract}`);
    const tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    this.#listeners.push(tcp);
    await shell(`chown -R ${uid}:${uid} .`, box.top);
    await this.ok("create", "G");
    await this.ok("backup", "S0");
    await this.ok("--inplace", "-d", other, "create", "Other");
    listen(join(other, "qmp.sock"));
    await shell(`chown -R ${uid}:${uid} .`, box.top);
    mkdirSync(join(box.top, "bin"));
    const pid = Bun.spawn([...this.#as.slice(4, -1), "sleep", "1000"]);
    this.#listeners.push({ stop: () => pid.kill() });
    const program = intruder(Bun.which("qemu-system-x86_64")!, {
      work: box.work,
      host: box.host,
      home: box.home,
      other,
      disk: join(other, "disk-0.img"),
      abstract,
      port: String(tcp.port),
      pid: String(pid.pid),
    });
    writeFileSync(join(box.top, "bin/qemu-system-x86_64"), program, { mode: 0o755 });
    box.environment.PATH = `${join(box.top, "bin")}:${process.env.PATH}`;
    box.environment.INTRUDER_SECRET = "x";
  }

  ok(...words: string[]): Promise<unknown> {
    return this.box.ok(words, { program: this.#as });
  }

  /** Has the stand-in try everything. @returns what was allowed, and its user */
  async intrude(...options: string[]): Promise<{ allowed: string[]; tried: number; uid: number }> {
    const result = await this.box.vm([...options, "run"], { program: this.#as });
    expect(result.stderr).toContain("qemu did not start (status 7)");
    const log = readFileSync(join(this.box.work, "qemu.log"), "utf8");
    const found = [...log.matchAll(/^(allowed|refused): (.*)$/gm)];
    return {
      allowed: found.flatMap(([, how, name]) => (how === "allowed" ? [name!] : [])),
      tried: found.length,
      uid: Number(/^uid (\d+)$/m.exec(log)?.[1]),
    };
  }

  [Symbol.dispose](): void {
    for (const one of this.#listeners) one.stop();
    this.box[Symbol.dispose]();
  }
}

/** System calls by their numbers. */
const suiteHere: typeof suite = process.arch === "x64" ? suite : () => {};

suiteHere(
  "a qemu that was taken over",
  () => {
    for (const [who, uid] of [
      ["root", 0],
      ["a user", isRoot ? PLAIN_UID : process.getuid!()],
    ] as const) {
      let house: House;
      const onlyHere = uid === process.getuid!() ? test : rootTest;
      const all = ATTEMPTS.map(({ name }) => name);

      onlyHere(`started by ${who}: everything is refused`, async () => {
        house = new House(uid);
        await house.prepare();
        const { allowed, tried, uid: own } = await house.intrude();
        expect({ allowed, tried }).toEqual({ allowed: [], tried: all.length });
        if (uid === 0) expect(own).toBeGreaterThan(1_900_000_000 - 1);
        else expect(own).toBe(uid);
      });

      onlyHere(
        `started by ${who} with --no-jail: it is not, which shows that the attempts can succeed`,
        async () => {
          const { allowed } = await house.intrude("--no-jail");
          const possible = ATTEMPTS.filter(({ root }) => uid === 0 || !root).map(({ name }) => name);
          // This program passes on no descriptors of its caller's, with or without a jail.
          expect(allowed).toEqual(possible.filter((name) => name !== "read a descriptor of the caller"));
          house[Symbol.dispose]();
        },
      );
    }

    test("a run in the foreground that is killed takes its qemu along", async () => {
      using box = smallSandbox();
      configure(box, "JAIL=auto\nMEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=1M)\nUSENETDEV=\nSHARES=()\n");
      await box.ok(["create", "G"]);
      const run = await startUntil(box, ["run"], "");
      await until("qemu runs", () => existsSync(join(box.work, "qmp.sock")));
      const status = JSON.parse((await box.ok(["status", "--json"])).stdout) as { jail: object };
      expect(status.jail).toMatchObject({ namespaces: true });
      run.kill("SIGKILL");
      await untilQuiet(box);
    });

    test("a running VM: qemu is alone, creates no files, and takes new disks, CDs and screenshots", async () => {
      using box = smallSandbox();
      configure(
        box,
        "JAIL=auto\nMEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=1M)\nUSENETDEV=\nSHARES=()\nSNAPSHOT_FORMAT=qcow2\n",
      );
      await box.ok(["--inplace", "create", "G"]);
      await box.ok(["run", "--detach"]);
      const pid = await qemuPid(box);
      const status = JSON.parse((await box.ok(["status", "--json"])).stdout) as { pid: number };
      expect(status.pid).toBe(pid);
      expect((await box.leftovers()).map((line) => line.split(" ")[0])).toEqual([String(pid)]);
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n");
      const options = mounts.find((line) => line.split(" ")[4] === box.host)!.split(" ")[5];
      expect(options).toMatch(/^ro,/);
      expect((await box.ok(["nic", "add", "user"])).stderr).toContain(
        "from the next run on: the jail of this run",
      );
      await box.ok(["disk", "add", "VIRT=1M"]);
      await box.ok(["backup"]);
      await box.ok(["backup"]);
      await box.ok(["screenshot", box.path("screen.png")]);
      const iso = box.path("any.iso");
      writeFileSync(iso, Buffer.alloc(1 << 20));
      await box.ok(["cd", iso]);
      await box.ok(["cd", "--eject"]);
      await box.ok(["stop", "--force"]);
      await box.ok(["verify", "--all"]);
    });
  },
  ["bwrap", "perl", "setpriv"],
);
