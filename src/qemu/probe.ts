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
  ioUring: boolean;
  nativeAio: boolean;
}

/** Replies of one qemu have some 100 KiB. */
const MAX_CACHE_BYTES = 16 << 20;

/** Directories of qemu's modules: installing one adds features. */
const MODULE_DIRECTORIES = [
  "/usr/lib/qemu",
  "/usr/lib64/qemu",
  "/usr/lib/x86_64-linux-gnu/qemu",
  "/usr/lib/aarch64-linux-gnu/qemu",
];

/**
 * Queries the features of qemu. They are cached in `cacheDirectory` until qemu or its modules change.
 * @throws 69 if qemu is not installed or does not start
 */
export async function probeQemu(binary: string, cacheDirectory: string | undefined): Promise<Capabilities> {
  const path = requireProgram(binary);
  const cache = cacheDirectory && join(cacheDirectory, `qemu-${fingerprint(path)}.json`);
  const cached = cache && readCache(cache);
  const probed = cached || (await queryFeatures(path));
  if (cache && !cached) writeCache(cache, probed);
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
    // Caches of earlier versions lack some.
    return Array.isArray(probed.devices) &&
      probed.version &&
      "sandbox" in probed &&
      "vnc" in probed &&
      "nativeAio" in probed
      ? probed
      : undefined;
  } catch {
    return undefined;
  }
}

/** Best effort: without a cache qemu is queried each time. */
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

async function queryFeatures(path: string): Promise<Probed> {
  const commands: readonly QmpCommand[] = [
    ["qmp_capabilities"],
    ["qom-list-types", { implements: "device", abstract: false }],
    ["query-command-line-options", { option: "spice" }],
    ["query-command-line-options", { option: "sandbox" }],
    ["query-command-line-options", { option: "vnc" }],
    [
      "blockdev-add",
      { driver: "file", "node-name": "tried", filename: path, "read-only": true, aio: "io_uring" },
    ],
    ["query-qmp-schema"],
    ["quit"],
  ];
  const [readEnd, writeEnd] = pipe();
  writeSync(writeEnd, commands.map(([name, args], id) => formatCommand(name, args, id)).join(""));
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
    const { message } = new ProcessError("cannot query the features of qemu", result);
    throw new VmError("unavailable", message, { hint: `run the command by hand: ${argv.join(" ")}` });
  }
  // Without the feature, the option is unknown or has no parameters.
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
    // An unknown value without the feature; an error of the kernel if that forbids it.
    ioUring: messages.some((message) => message?.kind === "reply" && message.id === 5),
    // The schema has no names of types, and no values that this build lacks.
    nativeAio: (replyTo("query-qmp-schema", 6) ?? []).some(({ members = [] }) =>
      ["threads", "native"].every((value) => members.some(({ name }) => name === value)),
    ),
  };
}
