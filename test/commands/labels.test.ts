/** Selecting VMs by states, patterns and labels. */
import { expect, spyOn, test } from "bun:test";
import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { runForEach } from "../../src/cli/each-vm.ts";
import { log } from "../../src/lib/log.ts";
import { signalError } from "../../src/process/signals.ts";
import * as all from "../../src/vm/all.ts";
import type { Context } from "../../src/vm/context.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { testWith } from "../fixtures/needs.ts";

/** VMs in PROFILES, with their labels. */
async function withVms(vms: Record<string, string>): Promise<Sandbox> {
  const box = new Sandbox();
  for (const [name, labels] of Object.entries(vms)) {
    const dir = directoryOf(box, name);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    await box.ok("-d", dir, "create", name);
    await box.ok("-d", dir, "set", `LABELS=${labels}`);
  }
  return box;
}
const directoryOf = (box: Sandbox, name: string): string => join(box.home, "vm", name);
const VMS = { web1: "web prod", web2: "web", db: "prod, db", plain: "" };

testWith("qemu-img")("list takes states, patterns and labels", async () => {
  using box = await withVms(VMS);
  const names = async (...words: string[]): Promise<string> =>
    (await box.ok("list", "-q", ...words)).stdout.trim().replaceAll("\n", " ");
  expect(await names()).toBe("db plain web1 web2");
  expect(await names("web*")).toBe("web1 web2");
  expect(await names("web?", "d*")).toBe("db web1 web2");
  expect(await names("--label=prod")).toBe("db web1");
  expect(await names("@prod")).toBe("db web1");
  expect(await names("@web", "@db")).toBe("db web1 web2");
  expect(await names("web*", "--label=prod")).toBe("web1");
  expect(await names("created", "web*")).toBe("web1 web2");
  expect(await names("running", "stopped")).toBe("");
  expect(await names("w(b1")).toBe("");
  const listed = JSON.parse((await box.ok("list", "--json", "db")).stdout) as { labels: string[] }[];
  expect(listed.map(({ labels }) => labels)).toEqual([["prod", "db"]]);
  expect((await box.ok("list")).stdout).toMatch(/LABELS[\s\S]*web prod/);
  expect((await box.ok("list", "plain")).stdout).not.toContain("LABELS");
  expect((await box.ok("-d", directoryOf(box, "db"), "status")).stdout).toMatch(/^labels: +prod db$/m);
});

testWith("qemu-img")("a line runs for each VM with the label; the highest status counts", async () => {
  using box = await withVms(VMS);
  const saved = await box.ok("--label=web", "@backup", "S0", "@set", "CORES=2");
  expect(saved.stderr).toMatch(/web1 \([\s\S]*S0[\s\S]*web2 \([\s\S]*S0/);
  const snapshots = (name: string): Promise<string> =>
    box.ok("-d", directoryOf(box, name), "snapshots").then(({ stdout }) => stdout);
  expect(await snapshots("web2")).toContain("S0");
  expect(await snapshots("db")).not.toContain("S0");
  // A snapshot that one has already; the other VM gets its own.
  const failed = await box.vm("backup", "S0", "@prod");
  expect(failed.status).toBe(73);
  expect(failed.stderr).toMatch(/failed for 1 of 2 VMs: web1/);
  expect(failed.stderr).toContain(`-d ${directoryOf(box, "web1")}`);
  expect(await snapshots("db")).toContain("S0");
  expect(await box.ok("stop", "@web", "--force")).toMatchObject({
    stderr: expect.stringMatching(/web1[\s\S]*not running[\s\S]*web2/),
  });
});

testWith("qemu-img")("starts and stops the labelled VMs", async () => {
  using box = await withVms({ a: "lab", b: "lab" });
  await box.ok("run", "--detach", "@lab");
  expect((await box.ok("list", "-q", "running")).stdout).toBe("a\nb\n");
  await box.ok("stop", "@lab");
  expect((await box.ok("list", "-q", "running", "@lab")).stdout).toBe("");
});

/** Appends to a VM's settings. */
const spoil = (box: Sandbox, name: string, line: string): void =>
  appendFileSync(join(directoryOf(box, name), ".work/guest.env"), `${line}\n`);

testWith("qemu-img")(
  "labels are read beside a wrong setting; a VM without known labels is reported",
  async () => {
    using box = await withVms({ a: "lab", b: "lab", c: "other" });
    spoil(box, "a", "MEMORY=oops");
    spoil(box, "c", "if true; then");
    const { stderr } = await box.ends(78, ["stop", "@lab", "--force"]);
    expect(stderr).toMatch(/warning: c \(.*\) is left out, as its labels cannot be read/);
    expect(stderr).toMatch(/^.*\ba \(.*\):$/m);
    const listed = await box.ok("list", "-q", "@lab");
    expect(listed.stdout).toBe("a\nb\n");
    expect(listed.stderr).toMatch(/warning: c \(.*\) is left out, as its labels cannot be read/);
    expect((await box.ok("list", "@lab")).stdout).toMatch(/^a +broken.* lab /m);
    expect((await box.ok("list", "-q", "@none")).stdout).toBe("");
  },
);

testWith("qemu-img").each(["we b", "we,b"])("LABELS=%p is two labels, and shown so", async (labels) => {
  using box = await withVms({ a: "" });
  const { stdout } = await box.ok("-d", directoryOf(box, "a"), "set", `LABELS=${labels}`);
  expect(stdout).toBe("LABELS: empty -> we b\n");
  await box.ends(64, ["-d", directoryOf(box, "a"), "set", "LABELS=Web"], "separated by blanks or commas");
  expect((await box.ok("list", "-q", "@b")).stdout).toBe("a\n");
});

const warning = (names: string): string =>
  `warning: the label 'stop' of ${names}: it is the name of a command, which @stop is; select by --label=stop`;

testWith("qemu-img")("labels in a file that are names of commands: warned of once", async () => {
  using box = await withVms({ a: "", b: "", c: "web" });
  for (const name of ["a", "b"]) spoil(box, name, "LABELS=(stop web)");
  const { stderr } = await box.ok("list");
  expect(stderr.split("\n").filter((line) => line.includes("label"))).toEqual([
    expect.stringContaining(warning("a, b")),
  ]);
  await box.ends(0, ["-d", directoryOf(box, "a"), "status"], warning("a"));
  expect((await box.ok("-d", directoryOf(box, "c"), "status")).stderr).toBe("");
  const { checks } = JSON.parse((await box.vm("-d", directoryOf(box, "a"), "doctor", "--json")).stdout);
  expect(checks).toContainEqual(expect.objectContaining({ name: "labels", state: "limited" }));
  expect((await box.ok("--label=stop", "@backup")).stderr).toMatch(/\ba \([\s\S]*\bb \(/);
  // What is none at all is an error.
  spoil(box, "c", "LABELS='Web!'");
  expect((await box.vm("list")).stdout).toMatch(/^c +broken[\s\S]*LABELS/m);
});

testWith("qemu-img")("nothing matches: list says so", async () => {
  using box = await withVms({ a: "" });
  for (const word of ["@nomatch", "runing"])
    expect(await box.ok("list", word)).toMatchObject({ stdout: "", stderr: `no VM matches ${word}\n` });
});

const interruptAtB = async ({ hostdir }: { hostdir?: string | undefined }): Promise<void> => {
  if (hostdir === "/b") throw signalError("SIGINT");
};

test("a stop signal: names the VMs that are not done", async () => {
  using found = spyOn(all, "findLabelled").mockResolvedValue({
    found: ["a", "b", "c"].map((name) => ({ name, hostdir: `/${name}` })),
    unknown: [],
  });
  using warn = spyOn(log, "warn").mockReturnValue(undefined);
  const context = { prog: "vm", options: {} } as unknown as Context;
  await expect(runForEach(context, ["lab"], false, interruptAtB)).rejects.toThrow("interrupted by SIGINT");
  expect(found).toHaveBeenCalledTimes(1);
  expect(warn.mock.calls).toEqual([["interrupted; not done for b, c"]]);
});

test.each([
  [["stop", "@nothing"], 66, /no VM has the label 'nothing'/],
  [["run", "@bakcup", "--detach"], 66, /did you mean: vm @backup/],
  [["run", "@lab"], 64, /in the foreground[\s\S]*--detach/],
  [["-d", ".", "stop", "@lab"], 64, /cannot be combined/],
  [["--label=lab", "destroy"], 64, /destroy: cannot be run for several VMs/],
  [["--label=Lab", "stop"], 64, /--label: 'Lab' is not allowed/],
  [["@stop", "@lab"], 64, /unknown command 'lab'/],
  [["backup", "@weB"], 64, /'@weB' is neither a command nor a label/],
  [["list", "@"], 64, /'@' is neither/],
  [["set", "LABELS=web,stop"], 64, /label 'stop' is not allowed: it is the name of a command/],
  [["create", "A", "@lab"], 64, /'@lab' is not a command, and create takes no label/],
  [["--label=lab", "@list", "@stop"], 64, /list and top cannot be combined/],
] as const)("%p is refused (%d)", async (words, status, message) => {
  using box = new Sandbox();
  expect(await box.vm(...words)).toMatchObject({ status, stderr: expect.stringMatching(message) });
});
