import { closeSync, fstatSync, readSync, realpathSync } from "node:fs";
import { hostname, availableParallelism, freemem, release, totalmem, userInfo } from "node:os";
import { join } from "node:path";
import { buildDefaults } from "../../config/defaults.ts";
import { SECRETS, SETTING_NAMES } from "../../config/schema.ts";
import { formatSize } from "../../lib/size.ts";
import { readCpuFlags } from "../../qemu/accel.ts";
import { openForReading, readSmall } from "../../lib/read-file.ts";
import { WORK } from "../../store/layout.ts";
import { formatConfig, type SettingsInForce } from "../config.ts";
import type { Context } from "../../vm/context.ts";
import { redact, type Private } from "./redact.ts";
import type { System } from "./system.ts";

/** Flags of /proc/cpuinfo that affect guests. */
const CPU_FLAGS = ["vmx", "svm", "ept", "npt", "hypervisor", "lm", "sse4_2", "avx2"];

const LOG_LINES = 30;
/** Enough for that many lines of usual length. */
const LOG_BYTES = 8192;

/** One fenced block of a report. */
export interface Section {
  title: string;
  text: string;
}

/**
 * A report of this host and the current VM as Markdown for an issue, without secrets, home directories and user names.
 */
export function makeReport(context: Context, host: System, found: SettingsInForce, table: string): string {
  const sections = [
    { title: `${context.prog} ${context.version}`, text: describeHost(context, host) },
    { title: "doctor", text: table },
    { title: "settings", text: describeSettings(context, found) },
    ...(found.work.state === "present" ? readLogs(found.work.dir) : []),
  ];
  return redact(buildReport(sections), privateOf(context, found));
}

/** Pure: a heading and a fenced block for each section that is not empty. */
export function buildReport(sections: readonly Section[]): string {
  return sections
    .filter(({ text }) => text.trim() !== "")
    .map(({ title, text }) => {
      // A fence is closed by the first one of its length (CommonMark, 4.5).
      const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
      const fence = "`".repeat(longest + 1);
      return `### ${title}\n\n${fence}text\n${text.trimEnd()}\n${fence}\n`;
    })
    .join("\n");
}

function describeHost(context: Context, host: System): string {
  const flags = readCpuFlags().filter((flag) => CPU_FLAGS.includes(flag));
  return [
    `system  ${host.name || "unknown"}`,
    `kernel  ${release()} ${context.hostArch}`,
    `cpu     ${availableParallelism()} usable; ${flags.join(" ") || "no flags known"}`,
    `memory  ${formatSize(totalmem())}, ${formatSize(freemem())} free`,
    `user    ${process.getuid!() === 0 ? "root" : "not root"}`,
    `bun     ${Bun.version}`,
  ].join("\n");
}

/** Settings that differ from the built-in values, and errors. Not SMBIOS: it may hold serial numbers and credentials. */
function describeSettings(context: Context, found: SettingsInForce): string {
  const names = SETTING_NAMES.filter(
    (name) => name !== "SMBIOS" && (found.origins[name].kind !== "default" || found.origins[name].added),
  );
  return (
    formatConfig(names, found, buildDefaults(context)) + (found.error ? `\n${found.error.message}\n` : "")
  );
}

const readLogs = (directory: string): Section[] =>
  [WORK.qemuLog, WORK.consoleLog].map((name) => ({
    title: `end of ${name}`,
    text: lastLines(readEnd(join(directory, name))),
  }));

/** The last lines of a file; empty if it cannot be read. */
function readEnd(path: string): string {
  let fd: number;
  try {
    fd = openForReading(path);
  } catch {
    return "";
  }
  try {
    const end = Buffer.alloc(LOG_BYTES);
    const at = Math.max(0, fstatSync(fd).size - LOG_BYTES);
    return end.subarray(0, readSync(fd, end, 0, LOG_BYTES, at)).toString();
  } catch {
    return "";
  } finally {
    closeSync(fd);
  }
}

/** Pure: the last lines of terminal output, as plain text. */
export const lastLines = (text: string): string =>
  Bun.stripANSI(text)
    .replaceAll(/[^\P{Cc}\n\t]/gu, "")
    .trimEnd()
    .split("\n")
    .slice(-LOG_LINES)
    .join("\n");

/** A text that may be missing: then there is nothing to hide. */
function attempt(value: () => string | undefined): string {
  try {
    return value() ?? "";
  } catch {
    return "";
  }
}

function privateOf({ home, env }: Context, { raw, work }: SettingsInForce): Private {
  const passwordFile = work.state === "present" ? join(work.dir, WORK.spicePassword) : undefined;
  return {
    homes: [home, attempt(() => realpathSync(home))],
    users: [attempt(() => userInfo().username), env.USER ?? "", env.LOGNAME ?? "", env.SUDO_USER ?? ""],
    hosts: [hostname()],
    secrets: [
      ...[...SECRETS].flatMap((name) => [env[name] ?? "", ...[raw[name as keyof typeof raw]].flat()]),
      attempt(() => (passwordFile === undefined ? "" : readSmall(passwordFile))),
    ],
  };
}
