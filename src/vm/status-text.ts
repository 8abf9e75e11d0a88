import { commandLine, programLine } from "../lib/command-line.ts";
import { ARCH } from "../machine/arch.ts";
import { ARCHES } from "../machine/types.ts";
import { localTime } from "../process/libc.ts";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { formatDuration, formatLocalTime } from "../lib/time.ts";
import { plain } from "../lib/text.ts";
import { isDiskName } from "../store/layout.ts";
import { explainExited } from "./explain-exited.ts";
import { describeChange } from "./change-text.ts";
import { formatDiskLimits } from "./disks.ts";
import type { JailRecord } from "../store/mark-types.ts";
import type { ListedNic } from "./nics.ts";
import { formatReach } from "./reach.ts";
import type { UnitState } from "./autostart-state.ts";
import type { AutostartStatus, Status } from "./status-types.ts";

/** The state, or what tells more. */
export const stateWord = ({ job, panicked, template, state }: Status): string =>
  state === "broken" ? state : job ? "job" : panicked ? "panicked" : template ? "template" : state;

const HEAD = ["NAME", "STATE", "ARCH", "CORES", "MEMORY", "DISKS", "SNAPSHOTS", "UP", "DIRECTORY"];

function rowOf(vm: Status, nameOf: (directory: string) => string): string[] {
  const place = plain(nameOf(vm.directory));
  if (vm.state === "broken") return [plain(vm.name), vm.state, "", "", "", "", "", "", place];
  return [
    plain(vm.name),
    stateWord(vm),
    vm.arch ?? "",
    String(vm.cores),
    formatSize(vm.memoryMiB! * 2 ** 20),
    disksOf(vm),
    String(vm.snapshots?.count ?? "?"),
    typeof vm.uptimeSeconds === "number" ? formatDuration(vm.uptimeSeconds) : "",
    place,
  ];
}

/** Formats VMs as a table. @param nameOf argument of `-d` for a directory */
export function formatList(all: readonly Status[], nameOf: (directory: string) => string): string {
  if (all.length === 0) return "";
  // Only where there are some.
  const labelled = all.some(({ labels = [] }) => labels.length > 0);
  const withLabels = (cells: string[], labels: string): string[] =>
    labelled ? cells.toSpliced(-1, 0, labels) : cells;
  const rows = all.map((vm) => withLabels(rowOf(vm, nameOf), (vm.labels ?? []).join(" ")));
  const errors = all.flatMap(({ error, name }) =>
    error === undefined ? [] : [`${plain(name)}: ${error.split("\n").map(plain).join("\n  ")}\n`],
  );
  return formatTable([withLabels(HEAD, "LABELS"), ...rows]) + errors.join("");
}

const disksOf = ({ disks = [] }: Status): string => {
  const total = disks.reduce((sum, disk) => sum + disk.actualBytes, 0);
  return disks.length === 0 ? "none" : `${disks.length}, ${formatSize(total)}`;
};

function describeFirmware({ uefi, secureBoot, platformKey, arch }: Status): string {
  if (!uefi) return ARCH[arch ?? ARCHES[0]].biosName;
  if (secureBoot) return `UEFI, Secure Boot${platformKey === false ? " (not enforced: no keys)" : ""}`;
  return platformKey ? "UEFI (keys are enrolled: Secure Boot may be enforced)" : "UEFI";
}

const formatTpm = ({ tpm, tpmExited }: Status): string | undefined =>
  [tpm, tpmExited && explainExited(["swtpm"])].filter(Boolean).join("; ") || undefined;

/**
 * When a device counts, if not both now and later.
 * @param running null if the VM is off
 */
export const formatWhen = (running: boolean | null, nextRun: boolean): string =>
  running === null || running === nextRun ? "" : running ? "this run only" : "from the next run on";

/** The disks, by number: `1 on VIRT: /srv/data.img, 20 GiB, 1.2 GiB on the host; from the next run on`. */
function diskFacts({ disks = [], images = [], diskAio }: Status): [string, string][] {
  const own = disks.map(({ file, ...disk }) => ({ ...disk, image: file, stored: disk.number !== null }));
  return [...own, ...images]
    .toSorted((a, b) => (a.number ?? Infinity) - (b.number ?? Infinity))
    .map(({ number, bus, image, virtualBytes, actualBytes, attached = null, stored, aio, ...limits }) => {
      const place = number === null ? "" : `${number}${bus === null ? "" : ` on ${bus}`}: `;
      const unreadable = number !== null && isDiskName(image) ? ", not readable" : "";
      const size = virtualBytes === null ? unreadable : `, ${formatSize(virtualBytes)}`;
      const held = actualBytes === null ? "" : `, ${formatSize(actualBytes)} on the host`;
      const when = number === null ? "not in IMAGES" : formatWhen(attached, stored);
      const io = aio === undefined || diskAio !== undefined ? "" : `, I/O: ${aio}`;
      const most = formatDiskLimits(limits);
      const limited = most && `, at most ${most}`;
      return ["disk", `${place}${image}${size}${held}${io}${limited}${when && `; ${when}`}`];
    });
}

/** `2: net=lab, 02:1a:2b:3c:4d:5e, web 10.1.2.16, link down` */
const formatNic = ({ number, network, mac, link, name, address, exited }: ListedNic): string => {
  const facts = [network !== "user" && network, mac ?? "qemu's MAC address"];
  return `${number}: ${[...facts, name && `${name} ${address}`, link === "down" && "link down"].filter(Boolean).join(", ")}${exited ? `; ${explainExited(exited)}` : ""}`;
};

/** `running (a job)`; `list` shows the word in parentheses alone. */
function formatState({ state, job, panicked, template }: Status): string {
  const kind = job ? "a job" : panicked ? "panicked" : template ? "template" : undefined;
  return kind === undefined || state === "broken" ? state : `${state} (${kind})`;
}

/** Formats one VM, one fact per line. */
export function formatStatus(vm: Status): string {
  const facts: [string, string | undefined][] = [
    ["name", vm.name],
    ["directory", vm.directory],
    ["state", formatState(vm)],
    [
      "suspended",
      vm.suspended && `since ${formatTime(vm.suspended.since)}, ${formatSize(vm.suspended.ramBytes)} of RAM`,
    ],
    ["error", vm.error],
    ...(vm.guestErrors ?? []).map((text): [string, string] => ["guest error", text]),
    ["hint", vm.hint],
    ["labels", vm.labels?.length ? vm.labels.join(" ") : undefined],
    ["template", vm.template ? "yes: it can only be cloned" : undefined],
    ["arch", vm.arch],
    ["cores", vm.cores?.toString()],
    ["memory", vm.memoryMiB === undefined ? undefined : formatSize(vm.memoryMiB * 2 ** 20)],
    ["firmware", vm.uefi === undefined ? undefined : describeFirmware(vm)],
    ["TPM", formatTpm(vm)],
    ...diskFacts(vm),
    ["disk I/O", vm.diskAio],
    ["cd", vm.cd === undefined ? undefined : (vm.cd ?? "none")],
    ...(vm.nics ?? []).map((nic): [string, string] => ["card", formatNic(nic)]),
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
    ...(vm.nextRunChanges ?? []).map((change): [string, string] => ["next run", describeChange(change)]),
    ["limits", vm.limits && formatLimits(vm.limits)],
    ["pid", vm.pid?.toString()],
    ["jail", vm.jail && describeJail(vm.jail)],
    ["started", vm.started ? formatTime(vm.started) : undefined],
    ["up", typeof vm.uptimeSeconds === "number" ? formatDuration(vm.uptimeSeconds) : undefined],
    ["ended", vm.lastEnd ? formatEnd(vm.lastEnd) : undefined],
    [
      "copy",
      vm.sameAs &&
        `of ${vm.sameAs}, or that is one of this: both have the same UUID and MAC address; in the copy, run: ${programLine("identity", "--new")}`,
    ],
    ["incomplete", vm.arriving && formatArriving(vm.arriving, vm.state)],
    ["cloned from", vm.clonedFrom && formatOrigin(vm.clonedFrom)],
    ...(vm.clones ?? []).map(({ directory, snapshot, missing }): [string, string] => [
      "linked clone",
      `${directory}, of ${snapshot}${missing ? "; missing" : ""}`,
    ]),
    ["autostart", vm.autostart ? formatAutostart(vm.autostart) : undefined],
    ["settings", vm.settingsFile],
    [
      "not read",
      vm.unreadSettings &&
        `${vm.unreadSettings}, changed later; change settings by: ${commandLine("set", "SETTING=VALUE")}`,
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

/** `disk-0.img: being copied from S1 in the repository, 40 %` */
function formatArriving(arriving: NonNullable<Status["arriving"]>, state: Status["state"]): string {
  const { snapshot, disks, repository, reason, percent, full } = arriving;
  const what = `${disks.join(", ")}: ${repository === "serves" ? "being copied from" : "a part is only in"} ${plain(snapshot)} in the repository`;
  const part = percent === undefined ? "" : `, ${percent} % done`;
  if (full !== undefined) {
    // Synchronous, and rarely needed.
    const { describeResumeCondition } = require("./guest-errors.ts") as typeof import("./guest-errors.ts");
    return `${what}${part}; copying stopped, no space left in ${full}: it continues as soon as ${describeResumeCondition(full)}`;
  }
  if (repository === "serves") return `${what}${part}`;
  if (repository === "away")
    return `${what}${part}; it cannot be read now${reason === undefined ? "" : ` (${reason})`}: the guest is paused when it needs that part, and resumed when it can be read again`;
  const [word, ...words] = state === "running" || state === "paused" ? ["resume"] : ["run", "--detach"];
  return `${what}${part}; to continue: ${commandLine(word!, ...words)}`;
}

/** `CPU 150 %, memory 2.0 GiB, I/O weight 50, in /vms.slice/vm-web-7.scope` */
const formatLimits = (limits: NonNullable<Status["limits"]>): string => {
  const { group, cpuPercent, memoryBytes, ioWeight, problem } = limits;
  return [
    cpuPercent !== null && `CPU ${cpuPercent} %`,
    memoryBytes !== null && `memory ${formatSize(memoryBytes)}`,
    ioWeight !== null && `I/O weight ${ioWeight}`,
    group !== null && `in ${group}`,
    problem,
  ]
    .filter(Boolean)
    .join(", ");
};

/** `active`, `failed (start-limit-hit)`, `active, restarted 3 times` */
export const formatUnitState = ({ active, result, restarts }: UnitState): string =>
  `${active}${active === "failed" ? ` (${result})` : ""}${restarts > 0 ? `, restarted ${restarts === 1 ? "once" : `${restarts} times`}` : ""}`;

/** `order 50, delay 5 s, restart after a crash; systemd: active` */
function formatAutostart({
  manager,
  order,
  delaySeconds,
  wait,
  restart,
  state,
  watched,
}: AutostartStatus): string {
  const facts = [
    `order ${order}`,
    delaySeconds > 0 && `delay ${delaySeconds} s`,
    wait && `wait for ${wait}`,
    restart && "restart after a crash",
  ];
  const by = manager === "cron" ? "cron" : manager === "system" ? "systemd" : "the user's systemd";
  const run =
    watched === false ? `; this run was started by hand: to have it watched, ${commandLine("restart")}` : "";
  return `${facts.filter(Boolean).join(", ")}; by ${by}${state ? `: ${formatUnitState(state)}` : ""}${run}`;
}

/** `/srv/base, snapshot S1, linked` */
function formatOrigin({ directory, snapshot, linked, movedFrom }: NonNullable<Status["clonedFrom"]>): string {
  const facts = [directory, snapshot !== null && `snapshot ${snapshot}`, linked && "linked"];
  const moved = movedFrom && `; moved from ${movedFrom}: 'run' updates the disks' backing files`;
  return `${facts.filter(Boolean).join(", ")}${moved ?? ""}`;
}

const formatTime = (iso: string): string => formatLocalTime(localTime(new Date(iso)));

/** `powered-off, 2026-01-02 03:04:05`; `stopped, 2026-01-02 03:04:05: guest killed: --force` */
const formatEnd = ({ end, at, how }: NonNullable<Status["lastEnd"]>): string =>
  `${end}${at === null ? "" : `, ${formatTime(at)}`}${how === undefined ? "" : `: ${how}`}`;

/** `own root and namespaces, without a network, Landlock, uid 1900000001`; `none; JAIL=off` */
export function describeJail(jail: JailRecord): string {
  const { namespaces, network, noNewPrivileges, landlock, uid, reasons } = jail;
  const parts = [
    namespaces ? `own root and namespaces${network ? ", without a network" : ""}` : undefined,
    noNewPrivileges && !namespaces ? "no new privileges" : undefined,
    landlock ? "Landlock" : undefined,
    uid === null ? undefined : `uid ${uid}`,
  ].filter((part) => part !== undefined);
  const state = noNewPrivileges ? parts.join(", ") : "none";
  return reasons.length === 0 ? state : `${state}; ${reasons.join("; ")}`;
}
