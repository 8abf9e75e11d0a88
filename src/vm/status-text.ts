import { settingWords } from "../config/assignment.ts";
import { ARCH } from "../machine/arch.ts";
import { ARCHES } from "../machine/types.ts";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { plain } from "../lib/text.ts";
import { formatReach } from "./reach.ts";
import type { Status } from "./status.ts";

const HEAD = ["NAME", "STATE", "ARCH", "CORES", "MEMORY", "DISKS", "SNAPSHOTS", "UP", "DIRECTORY"];

/** Formats VMs as a table. @param nameOf argument of `-d` for a directory */
export function formatList(all: readonly Status[], nameOf: (directory: string) => string): string {
  if (all.length === 0) return "";
  const rows = all.map((vm) =>
    vm.state === "broken"
      ? [plain(vm.name), vm.state, "", "", "", "", "", "", plain(nameOf(vm.directory))]
      : [
          plain(vm.name),
          vm.job ? "job" : vm.panicked ? "panicked" : vm.state,
          vm.arch ?? "",
          String(vm.cores),
          formatSize(vm.memoryMiB! * 2 ** 20),
          disksOf(vm),
          String(vm.snapshots?.count ?? "?"),
          typeof vm.uptimeSeconds === "number" ? formatDuration(vm.uptimeSeconds) : "",
          plain(nameOf(vm.directory)),
        ],
  );
  const errors = all.flatMap(({ error, name }) =>
    error === undefined ? [] : [`${plain(name)}: ${error.split("\n").map(plain).join("\n  ")}\n`],
  );
  return formatTable([HEAD, ...rows]) + errors.join("");
}

const disksOf = ({ disks = [] }: Status): string => {
  const total = disks.reduce((sum, disk) => sum + disk.actualBytes, 0);
  return disks.length === 0 ? "none" : `${disks.length}, ${formatSize(total)}`;
};

/** Formats one VM, one fact per line. */
export function formatStatus(vm: Status): string {
  const facts: [string, string | undefined][] = [
    ["name", vm.name],
    ["directory", vm.directory],
    ["state", vm.job ? `${vm.state} (a job)` : vm.panicked ? `${vm.state} (panicked)` : vm.state],
    ["error", vm.error],
    ...(vm.guestErrors ?? []).map((text): [string, string] => ["guest error", text]),
    ["hint", vm.hint],
    ["arch", vm.arch],
    ["cores", vm.cores?.toString()],
    ["memory", vm.memoryMiB === undefined ? undefined : formatSize(vm.memoryMiB * 2 ** 20)],
    ["firmware", vm.uefi === undefined ? undefined : vm.uefi ? "UEFI" : ARCH[vm.arch ?? ARCHES[0]].biosName],
    ...(vm.disks ?? []).map(({ file, virtualBytes, actualBytes, attached }): [string, string] => [
      "disk",
      `${file}: ${virtualBytes === null ? "not readable" : formatSize(virtualBytes)}, ${formatSize(actualBytes)} in use${attached === false ? "; attached from the next run on" : ""}`,
    ]),
    ["disk I/O", vm.diskAio],
    ...(vm.nics ?? []).map(({ number, mac, link }): [string, string] => [
      "card",
      `${number}: ${mac ?? "qemu's MAC address"}${link === "down" ? ", link down" : ""}`,
    ]),
    [
      "snapshots",
      vm.snapshots && `${vm.snapshots.count}${vm.snapshots.last ? `, last ${vm.snapshots.last}` : ""}`,
    ],
    ...(vm.forwards ?? []).map((rule): [string, string] => ["forward", rule.replace(/^hostfwd=/, "")]),
    [
      "display",
      vm.display
        ? `${vm.display.protocol} on ${"socket" in vm.display ? vm.display.socket : `${vm.display.host}:${vm.display.port}`}`
        : undefined,
    ],
    ...Object.entries(vm.nextRun ?? {}).map(([name, value]): [string, string] => [
      "next run",
      settingWords(name, value),
    ]),
    ["pid", vm.pid?.toString()],
    ["started", vm.started ? formatTimestamp(new Date(vm.started)) : undefined],
    ["up", typeof vm.uptimeSeconds === "number" ? formatDuration(vm.uptimeSeconds) : undefined],
    [
      "ended",
      vm.lastEnd
        ? `${vm.lastEnd.end}${vm.lastEnd.at ? `, ${formatTimestamp(new Date(vm.lastEnd.at))}` : ""}`
        : undefined,
    ],
    ...(vm.reaches ?? []).map((reach): [string, string] => ["reaches for", formatReach(reach)]),
    [
      "working files",
      vm.workingFiles ? `${vm.workingFiles.directory}, ${formatSize(vm.workingFiles.actualBytes)}` : vm.gone,
    ],
  ];
  return facts
    .flatMap(([name, text]) =>
      text === undefined
        ? []
        : [
            `${`${name}:`.padEnd(15)}${name === "error" || name === "hint" ? text.split("\n").map(plain).join("\n  ") : plain(text)}\n`,
          ],
    )
    .join("");
}
