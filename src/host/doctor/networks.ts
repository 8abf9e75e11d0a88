import { readFileSync } from "node:fs";
import type { Settings } from "../../config/schema.ts";
import type { NetworkRequest } from "../../machine/network.ts";
import { LAN_PROGRAMS, OUTSIDE_PROGRAMS } from "../../network/lan.ts";
import { exec, findProgram } from "../../process/exec.ts";
import { findBridgeHelper, findBridgeProblems } from "../../qemu/bridge.ts";
import { findDown } from "../../qemu/link.ts";
import { findTapProblem } from "../../qemu/tap.ts";
import { networksOf } from "../../vm/nics.ts";
import { PACKAGES, type Packages } from "../../lib/packages.ts";
import { checkProgram, oneLine, type Check } from "./check.ts";

/** Networks other than the user-mode one; required if the current VM has a card on them. */
export async function checkNetworks(settings: Settings): Promise<Check[]> {
  const cards = networksOf(settings);
  const has = (fits: (card: NetworkRequest) => boolean): boolean => cards.some(fits);
  const names = (wanted: NetworkRequest["kind"]): string[] => [
    ...new Set(cards.flatMap(({ kind, name }) => (kind === wanted ? [name!] : []))),
  ];
  return [
    checkProgram({
      name: "passt",
      use: "network cards on passt",
      needed: has(({ kind }) => kind === "passt"),
      thing: "passt",
    }),
    checkBridgeHelper(),
    ...names("bridge").map(checkBridge),
    ...names("tap").map(checkTap),
    checkLan(
      "net",
      "networks among VMs",
      has(({ kind }) => kind === "net"),
      LAN_PROGRAMS,
    ),
    checkLan(
      "net-outside",
      "networks among VMs: the outside",
      has(({ kind, outside }) => kind === "net" && outside !== "off"),
      OUTSIDE_PROGRAMS,
    ),
    await checkNamespaces(has(({ kind }) => kind === "net")),
  ];
}

const BRIDGE_USE = "network cards on bridges";

function checkBridgeHelper(): Check {
  const helper = findBridgeHelper();
  const common = { name: "qemu-bridge-helper", needed: false, use: BRIDGE_USE };
  return helper === undefined
    ? { ...common, state: "missing", detail: "not found", packages: PACKAGES["bridge-helper"] }
    : { ...common, state: "ok", detail: helper };
}

const describeProblems = (problems: readonly { text: string; fix: string }[]): string =>
  problems.map(({ text, fix }) => `${text} (${fix})`).join("; ");

function checkUp(kind: "bridge" | "tap device", name: string): Pick<Check, "state" | "detail"> {
  const problem = findDown(kind, name);
  return problem
    ? { state: "limited", detail: describeProblems([problem]) }
    : { state: "ok", detail: `/sys/class/net/${name}` };
}

function checkBridge(name: string): Check {
  const problems = findBridgeProblems(name);
  const common = { name: `bridge=${name}`, needed: true, use: BRIDGE_USE };
  return problems.length === 0
    ? { ...common, ...checkUp("bridge", name) }
    : { ...common, state: "missing", detail: describeProblems(problems) };
}

function checkTap(name: string): Check {
  const problem = findTapProblem(name);
  const common = { name: `tap=${name}`, needed: true, use: "network cards on tap devices" };
  return problem === undefined
    ? { ...common, ...checkUp("tap device", name) }
    : { ...common, state: "missing", detail: describeProblems([problem]) };
}

function checkLan(
  name: string,
  use: string,
  needed: boolean,
  programs: Readonly<Record<string, keyof typeof PACKAGES>>,
): Check {
  const absent = Object.entries(programs).filter(([program]) => findProgram(program) === undefined);
  if (absent.length === 0)
    return { name, needed, use, state: "ok", detail: Object.keys(programs).join(", ") };
  const packages = absent.map(([, thing]): Packages => PACKAGES[thing])[0]!;
  const detail = `no ${absent.map(([program]) => program).join(", ")}`;
  return { name, needed, use, state: "missing", detail, packages };
}

/** Settings of the kernel that forbid user namespaces (user_namespaces(7); Debian's and Ubuntu's own). */
const FORBIDDING: readonly [key: string, value: string, fix: string][] = [
  ["kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"],
  [
    "kernel/apparmor_restrict_unprivileged_userns",
    "1",
    "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
  ],
  ["user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=10000"],
];

const readKey = (key: string): string | undefined => {
  try {
    return readFileSync(`/proc/sys/${key}`, "utf8").trim();
  } catch {
    return undefined;
  }
};

async function checkNamespaces(needed: boolean): Promise<Check> {
  const common = { name: "user-namespaces", needed, use: "networks among VMs" };
  if (findProgram("unshare") === undefined)
    return { ...common, state: "missing", detail: "no unshare", packages: PACKAGES.setpriv };
  const argv = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "true"];
  const { status, stderr } = await exec(argv, { anyStatus: true });
  if (status === 0) return { ...common, state: "ok", detail: "" };
  const fix = FORBIDDING.find(([key, value]) => readKey(key) === value)?.[2];
  return { ...common, state: "missing", detail: [oneLine(stderr), fix].filter(Boolean).join("; ") };
}
