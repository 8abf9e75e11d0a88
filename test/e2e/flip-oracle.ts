/** Damage that must be detected, and commands that must work nevertheless. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { contentOfDirectory } from "./disk-oracle.ts";
import type { Victim } from "./flip-faults.ts";
import { type SoakLab } from "./soak-lab.ts";
import { badSpeech, lastLines, notDone, type Ran } from "./soak-speech.ts";

/** The limit of each command: the files are small. */
const LIMIT_SECONDS = 30;

const isDisk = (file: string): boolean => /^disk-\d+\./.test(file);

async function run(lab: SoakLab, ...command: string[]): Promise<Ran> {
  return lab.run(command, { seconds: LIMIT_SECONDS });
}

/** Commands that must neither crash nor hang, whatever their status. */
const LOOKS: readonly (readonly string[])[] = [
  ["status"],
  ["snapshots", "list"],
  ["status", "--json"],
  ["stop"],
  ["snapshots", "list", "--json"],
  ["config"],
  ["verify", "--all", "--deep"],
];

/** Uses the VM up. @returns problems */
export async function judgeDamage(lab: SoakLab, victim: Victim, turn: number): Promise<string[]> {
  const wrong = badSpeech(await run(lab, ...LOOKS[turn % LOOKS.length]!));
  wrong.push(
    ...(victim.snapshot === undefined
      ? await judgeWorking(lab, victim, turn)
      : await judgeSnapshot(lab, victim, victim.snapshot, turn)),
  );
  // Half of them are destroyed before the restore, in their damaged state.
  if (turn % 2 === 1) wrong.push(...notDone("damaged", await run(lab, "destroy")));
  const good = victim.snapshot === "P" ? "Q" : "P";
  const restored = await run(lab, "restore", good);
  wrong.push(...notDone("of a good snapshot", restored));
  const held = await lab.work();
  if (restored.status === 0 && held !== good) wrong.push(`restore ${good} gives ${held}`);
  if (restored.status === 0 || turn % 2 === 0) {
    const destroyed = await run(lab, "destroy");
    wrong.push(...notDone("in the end", destroyed));
    const left = await lab.work();
    if (destroyed.status === 0 && left !== "none") wrong.push(`after destroy the working disks hold ${left}`);
  }
  wrong.push(...(await lab.quiet()));
  return wrong;
}

/** Do the checksums still name every file of the snapshot but its description, and match, for sha256sum itself? */
function sumsHold(dir: string): boolean {
  const text = readFileSync(join(dir, "SHA256SUMS"), "latin1");
  const listed = new Set([...text.matchAll(/^[0-9a-f]{64} [ *](.+)$/gim)].map((match) => match[1]));
  const files = readdirSync(dir).filter((name) => !["SHA256SUMS", "PROTECTED", "DESCRIPTION"].includes(name));
  const { exitCode } = Bun.spawnSync(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], {
    cwd: dir,
    stdout: "ignore",
    stderr: "ignore",
    timeout: 60_000,
  });
  return exitCode === 0 && files.every((name) => listed.has(name));
}

async function judgeSnapshot(lab: SoakLab, { file }: Victim, name: string, turn: number): Promise<string[]> {
  const changesMeaning = !sumsHold(lab.box.path("backups", name));
  const verified = await run(lab, "verify", name);
  const wrong = badSpeech(verified);
  if (changesMeaning && !(verified.status === 74 && (verified.stdout + verified.stderr).includes(name)))
    wrong.push(`verify ends with ${verified.status}: ${lastLines(verified.stdout + verified.stderr)}`);

  // A qcow2 disk is not read at restore: verify checks it.
  const restored = await run(lab, "restore", name);
  wrong.push(...badSpeech(restored));
  const held = await lab.work();
  if (restored.status === 0 ? held !== name && !isDisk(file) : held !== "work")
    wrong.push(
      `restore ${name} ends with ${restored.status}: the working disks hold ${held}; ${lastLines(restored.stderr)}`,
    );
  if (restored.status !== 0 && ![74, 78].includes(restored.status ?? -1))
    wrong.push(`restore ${name}: status ${restored.status}: ${lastLines(restored.stderr)}`);

  if (turn % 3 === 0) {
    const made = await run(lab, "backup", "N", `--format=${turn % 2 === 0 ? "gz" : "qcow2"}`);
    wrong.push(...badSpeech(made));
    if (made.status === 0) {
      const content = await lab.snapshot("N");
      if (content !== (await lab.work()) && !isDisk(file))
        wrong.push(`backup ends with 0, and N holds ${content}`);
    } else if (made.status !== 74 || existsSync(lab.box.path("backups", "N")))
      wrong.push(`backup: status ${made.status}: ${lastLines(made.stderr)}`);
  }
  return wrong;
}

/** Is it an image that qemu would not open, or a truncated one? */
function isBroken(image: string): boolean {
  const { exitCode } = Bun.spawnSync(["qemu-img", "check", "-q", "-f", "qcow2", image], {
    stdout: "ignore",
    stderr: "ignore",
    timeout: 60_000,
  });
  // 3: leaked clusters.
  return exitCode !== 0 && exitCode !== 3;
}

/** Without the settings. */
const disksOf = (content: string): string => content.replace(/, env .*/, "");

async function judgeWorking(lab: SoakLab, { path, file }: Victim, turn: number): Promise<string[]> {
  const wrong: string[] = [];
  const dir = lab.workDir() ?? lab.box.host;
  const broken = isDisk(file) && isBroken(path);
  const before = await contentOfDirectory(dir, readdirSync(dir));
  const last = (await lab.look()).last;
  const size = statSync(path).size;
  const isInWork = path.startsWith(`${dir}/`);

  const made = await run(lab, "backup", "N", `--format=${turn % 4 < 2 ? "gz" : "qcow2"}`);
  wrong.push(...badSpeech(made));
  const { status, stderr } = made;
  const said = `${status}: ${lastLines(stderr)}`;
  if (status === 0) {
    // The snapshot must have the VM's contents: every disk, as read by qemu. An incremental snapshot
    // omits clusters that no guest has written, so flips in these are not in it.
    const snapshot = lab.box.path("backups", "N");
    const held = await contentOfDirectory(snapshot, readdirSync(snapshot));
    if (broken) wrong.push(`a disk that qemu-img check refuses is backed up: ${said}`);
    else if (disksOf(held) !== disksOf(before) && disksOf(held) !== disksOf(lab.known.get("work") ?? ""))
      wrong.push(`backup ends with 0, and N holds ${held} instead of ${before}`);
    if (file === "guest.env" && isInWork && size === 0) wrong.push("backup takes settings of no bytes");
    if (file === ".vm.json" && !isJson(path) && !/\.vm\.json|mark/i.test(stderr))
      wrong.push(`backup does not name the damaged .vm.json: ${said}`);
  } else {
    if (!allowedFor(file).includes(status ?? -1)) wrong.push(`backup ends with ${said}`);
    if (lab.names().includes("N") || (await lab.look()).last !== last)
      wrong.push(`a backup that fails leaves a snapshot, or another LAST: ${said}`);
  }
  if (file === "guest.env" && isInWork && size === 0) {
    if (status !== 78) wrong.push(`backup with settings of no bytes ends with ${said}`);
    const ran = await run(lab, "run", "--detach");
    wrong.push(...badSpeech(ran));
    if (ran.status !== 78) wrong.push(`run with settings of no bytes ends with ${ran.status}`);
    if (ran.status === 0) wrong.push(...notDone("then", await run(lab, "stop", "--force")));
  }
  // Firmware does not start with variables of another size.
  if (file === "efivars.bin" && size !== lab.nvramBytes && status === 0)
    wrong.push(`backup takes UEFI variables of ${size} bytes`);
  return wrong;
}

/** Exit statuses of a backup that refuses a damaged file. */
function allowedFor(file: string): readonly number[] {
  // Settings may name a missing disk, or another machine.
  if (file === "guest.env") return [66, 69, 74, 78];
  if (file === "vm.defaults") return [78];
  return [74];
}

function isJson(path: string): boolean {
  try {
    return typeof JSON.parse(readFileSync(path, "utf8")) === "object";
  } catch {
    return false;
  }
}
