import { closeSync, mkdirSync, realpathSync, renameSync, statSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { readNamed } from "../lib/read-file.ts";
import { pipe } from "../process/libc.ts";
import { exec, ProcessError, requireProgram } from "../process/exec.ts";
import {
  checkReply,
  QMP_COMMANDS,
  formatCommand,
  type QmpCommand,
  type CommandName,
  type ReplyOf,
} from "../qmp/commands.ts";
import { parseQmpLine } from "../qmp/protocol.ts";
import type { Capabilities } from "./capabilities.ts";
import { sha256 } from "../lib/crypto.ts";

interface Probed {
  version: string;
  devices: string[];
  spice: boolean;
  sandbox: boolean;
  vnc: boolean;
}

/** The answers of one qemu take some 100 KiB. */
const MAX_CACHE_BYTES = 16 << 20;

/** Where distributions keep qemu's modules: installing one changes what qemu can do. */
const MODULE_DIRECTORIES = [
  "/usr/lib/qemu",
  "/usr/lib64/qemu",
  "/usr/lib/x86_64-linux-gnu/qemu",
  "/usr/lib/aarch64-linux-gnu/qemu",
];

/**
 * Asks qemu itself what it can do. The answer is kept in `cacheDirectory` until qemu or its modules change.
 * @throws 69 when qemu is missing or does not start
 */
export async function probeQemu(binary: string, cacheDirectory: string | undefined): Promise<Capabilities> {
  const path = requireProgram(binary);
  const cache = cacheDirectory && join(cacheDirectory, `qemu-${fingerprint(path)}.json`);
  const known = cache && readCache(cache);
  const probed = known || (await askBinary(path));
  if (cache && !known) writeCache(cache, probed);
  return { ...probed, devices: new Set(probed.devices) };
}

function fingerprint(path: string): string {
  const facts = [realpathSync(path), ...MODULE_DIRECTORIES].map((item) => {
    try {
      const { size, mtimeMs } = statSync(item);
      return `${item} ${size} ${mtimeMs}`;
    } catch {
      return `${item} absent`;
    }
  });
  return sha256(facts.join("\n")).slice(0, 16);
}

function readCache(path: string): Probed | undefined {
  try {
    const probed = JSON.parse(readNamed(path, MAX_CACHE_BYTES).toString()) as Probed;
    // An older version of this program did not ask about these.
    return Array.isArray(probed.devices) && probed.version && "sandbox" in probed && "vnc" in probed
      ? probed
      : undefined;
  } catch {
    return undefined;
  }
}

/** Best effort: without a cache qemu is asked each time. */
function writeCache(path: string, probed: Probed): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const beside = `${path}.${process.pid}`;
    writeFileSync(beside, JSON.stringify(probed), { mode: 0o600 });
    renameSync(beside, path);
  } catch {
    // HOME may be read-only or absent.
  }
}

async function askBinary(path: string): Promise<Probed> {
  const questions: readonly QmpCommand[] = [
    ["qmp_capabilities"],
    ["qom-list-types", { implements: "device", abstract: false }],
    ["query-command-line-options", { option: "spice" }],
    ["query-command-line-options", { option: "sandbox" }],
    ["query-command-line-options", { option: "vnc" }],
    ["quit"],
  ];
  const [readEnd, writeEnd] = pipe();
  writeSync(writeEnd, questions.map(([name, args], id) => formatCommand(name, args, id)).join(""));
  closeSync(writeEnd);
  const argv = [
    path,
    "-machine",
    "none",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-qmp",
    "stdio",
  ];
  const result = await exec(argv, { stdin: readEnd, anyStatus: true }).finally(() => closeSync(readEnd));
  const messages = result.stdout
    .split("\n")
    .flatMap((line) => (line.startsWith("{") ? [parseQmpLine(line)] : []));
  const replyTo = <Name extends CommandName>(command: Name, id: number): ReplyOf<Name> | undefined => {
    const message = messages.find((item) => item?.kind === "reply" && item.id === id);
    if (message?.kind !== "reply") return undefined;
    checkReply(command, QMP_COMMANDS[command], message.value);
    return message.value as ReplyOf<Name>;
  };
  const greeting = messages.find((message) => message?.kind === "greeting");
  const types = replyTo("qom-list-types", 1);
  if (greeting?.kind !== "greeting" || !types) {
    const { message } = new ProcessError("qemu does not answer", result);
    throw new VmError("unavailable", message, { hint: `try it by hand: ${argv.join(" ")}` });
  }
  // Without the feature it has no parameters, or is no option.
  const has = (id: number, parameter: string): boolean =>
    replyTo("query-command-line-options", id)?.some(({ parameters }) =>
      parameters.some(({ name }) => name === parameter),
    ) === true;
  return {
    version: greeting.version,
    devices: types.map(({ name }) => name),
    spice: has(2, "password-secret"),
    sandbox: has(3, "elevateprivileges"),
    vnc: has(4, "password-secret"),
  };
}
