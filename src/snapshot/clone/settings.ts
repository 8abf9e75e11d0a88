import { isAbsolute, join } from "node:path";
import { parseSetting, type SettingName } from "../../config/schema.ts";
import type { SettingValue } from "../../config/shell-expand.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { readSmall } from "../../lib/read-file.ts";
import { macroOf } from "../../machine/macros.ts";
import { formatImage, parseHostForward, parseImage } from "../../machine/parse.ts";
import { COPY_NOTE, readValues, withChanges } from "../../store/guest-env.ts";
import { isDiskName } from "../../store/layout.ts";
import { listPlaces } from "../../store/places.ts";
import { findGuestEnv, resolveWork } from "../../store/workdir.ts";
import { DEFAULT_PORT, findForwardProblem } from "../../vm/display.ts";

/** Ports of this host that VMs have chosen: `tcp 5555`. */
export type ChosenPorts = Set<string>;

/** What of a clone's settings is its own. */
export interface CloneIdentity {
  name: string;
  uuid: string;
}

type EnvValues = Record<string, SettingValue | undefined>;

const hostRule = (option: string): ReturnType<typeof parseHostForward> =>
  parseHostForward(option.replace(/^hostfwd=/, ""));

/** Options of FORWARDS; none if it cannot be read. */
function readForwards({ FORWARDS = "" }: EnvValues): string[] {
  const parsed = parseSetting("FORWARDS", FORWARDS);
  return "value" in parsed ? (parsed.value as string[]) : [];
}

/** The display's port, if it is not the default, in place of which a free one is used. */
const displayPort = ({ PORT = "" }: EnvValues): number | undefined =>
  /^\d{1,5}$/.test(String(PORT)) && Number(PORT) !== DEFAULT_PORT ? Number(PORT) : undefined;

function addPorts(ports: ChosenPorts, values: EnvValues): void {
  for (const option of readForwards(values)) {
    const rule = hostRule(option);
    if (rule) ports.add(`${rule.protocol} ${rule.hostPort}`);
  }
  const display = displayPort(values);
  if (display !== undefined) ports.add(`tcp ${display}`);
}

/** Ports of this user's VMs, as far as these are recorded and can be read. */
export function findChosenPorts(cacheDirectory: string | undefined): ChosenPorts {
  const ports: ChosenPorts = new Set();
  for (const hostdir of listPlaces(cacheDirectory))
    try {
      const path = findGuestEnv(hostdir, resolveWork(hostdir));
      addPorts(ports, (path === undefined ? undefined : readValues(readSmall(path) ?? "")) ?? {});
    } catch {
      // Reported where that VM is used.
    }
  return ports;
}

/**
 * The guest.env of a clone: that of the VM, with a name, a UUID, MAC addresses and host ports of its own.
 * @param text of the VM's guest.env, or of the snapshot's
 * @param work directory that relative images are in
 * @param ports those of the clone are added
 * @throws 78 if it has other lines than assignments
 */
export async function buildCloneSettings(
  text: string,
  { name, uuid }: CloneIdentity,
  work: string | undefined,
  ports: ChosenPorts,
): Promise<string> {
  const values = readValues(text);
  addPorts(ports, values ?? {});
  const changed =
    values && withChanges(stripNote(text), await changesFor(values, { name, uuid }, work, ports));
  if (changed !== undefined) return changed;
  throw new VmError("config", "cannot clone: guest.env has lines other than plain NAME=value", {
    hint: "a clone needs a name, a UUID and ports of its own there: make them plain assignments",
  });
}

const stripNote = (text: string): string =>
  text.startsWith(`${COPY_NOTE}\n`) ? text.slice(COPY_NOTE.length + 1) : text;

async function changesFor(
  values: EnvValues,
  { name, uuid }: CloneIdentity,
  work: string | undefined,
  ports: ChosenPorts,
): Promise<Partial<Record<SettingName, SettingValue | undefined>>> {
  const { NETWORKS, IMAGES } = values;
  const forwards = readForwards(values);
  const moved: string[] = [];
  for (const option of forwards) moved.push(await moveForward(option, ports));
  const display = displayPort(values);
  return {
    GUESTNAME: name,
    UUID: uuid,
    UUID_FORMER: undefined,
    MAC: "auto",
    TEMPLATE: undefined,
    ...(NETWORKS !== undefined && { NETWORKS: [NETWORKS].flat().map(withoutMac) }),
    ...(IMAGES !== undefined && { IMAGES: [IMAGES].flat().map((image) => placeImage(image, work)) }),
    ...(moved.some((option, index) => option !== forwards[index]) && { FORWARDS: moved.join(",") }),
    ...(display !== undefined && { PORT: String(await nextPort("tcp", "", display, ports)) }),
  };
}

/** `user,mac=02:…,link=down` → `user,link=down` */
const withoutMac = (network: string): string =>
  network
    .split(",")
    .filter((option) => !option.startsWith("mac="))
    .join(",");

/** An image that is not the VM's own stays where it is. */
function placeImage(text: string, work: string | undefined): string {
  const image = parseImage(text);
  if (!image || isDiskName(image.path)) return text;
  log.warn(`the clone has the same disk image as this VM: ${image.path}; only one of both can run with it`);
  if (work === undefined || isAbsolute(image.path) || macroOf(image.path)) return text;
  return formatImage({ ...image, path: join(work, image.path) });
}

/** Moves a forward to a port of the host that no other VM has. */
async function moveForward(option: string, ports: ChosenPorts): Promise<string> {
  const rule = option.startsWith("hostfwd=") ? hostRule(option) : undefined;
  if (!rule || rule.hostPort === 0) return option;
  const port = await nextPort(rule.protocol, rule.hostAddress, rule.hostPort, ports);
  const moved = option.replace(`:${rule.hostPort}-`, `:${port}-`);
  log.info(`  forward ${option.replace("hostfwd=", "")} is ${moved.replace("hostfwd=", "")} in the clone`);
  return moved;
}

/** The next port of the host that no VM has chosen and no program listens on. */
async function nextPort(
  protocol: "tcp" | "udp",
  address: string,
  port: number,
  ports: ChosenPorts,
): Promise<number> {
  for (let next = port + 1; next < 65536; next++) {
    const key = `${protocol} ${next}`;
    const probe = `hostfwd=${protocol}:${address}:${next}-:1`;
    if (ports.has(key)) continue;
    // Before it is tried: several clones are made at a time.
    ports.add(key);
    if ((await findForwardProblem(probe)) !== "taken") return next;
  }
  throw new VmError("busy", `cannot clone: no free ${protocol} port after ${port}`, {
    hint: "remove the forward from the VM first",
  });
}
