import { mkdirSync, renameSync } from "node:fs";
import { join, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { log } from "../lib/log.ts";
import {
  buildMetaData,
  buildNetworkConfig,
  buildUserData,
  findUserDataProblem,
  hostNameOf,
  SEED_LABEL,
} from "../machine/cloud-config.ts";
import type { Nic } from "../machine/types.ts";
import { exec, findProgram } from "../process/exec.ts";
import { remove } from "../store/remove.ts";
import { syncFile, writeNew } from "../store/files.ts";
import { PARTIAL, WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import type { CloudInitRequest } from "./create-options.ts";
import { lstatOf, readNamed, requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "../vm/find.ts";

/** Files of cloud-init's NoCloud volume, by name. */
export type Seed = Record<"user-data" | "meta-data", string | Buffer> & { "network-config"?: string };

/**
 * Prepares the data for cloud-init, of the network only where NETWORKS names the cards, and checks that everything it needs exists.
 * @throws 66 without the user-data or any key, 69 if no program to create an ISO 9660 volume is installed
 */
export function planSeed(
  context: Context,
  vm: Vm,
  guestName: string,
  request: CloudInitRequest,
  nics: readonly Nic[],
): Seed {
  findIsoProgram();
  const network =
    vm.settings.NETWORKS.length > 0 && nics.length > 0 ? { "network-config": buildNetworkConfig(nics) } : {};
  const metaData = buildMetaData(`vm-${crypto.randomUUID()}`, hostNameOf(guestName));
  if (request.userData !== undefined) {
    const file = requireReadableFile(resolve(context.cwd, request.userData), "the user-data");
    const userData = readNamed(file);
    const problem = findUserDataProblem(userData);
    if (problem !== undefined) log.warn(`cloud-init will ignore the user-data ${file}: ${problem}`);
    return { "user-data": userData, "meta-data": metaData, ...network };
  }
  const keys = readKeys(vm);
  const user = request.user ?? "the image's default user";
  const login = request.user === undefined ? `; log in: ${commandLine("ssh", "--user=NAME")}` : "";
  log.info(
    `cloud-init authorises ${keys.length === 1 ? "one SSH key" : `${keys.length} SSH keys`} for ${user}${login}`,
  );
  return { "user-data": buildUserData(request.user, keys), "meta-data": metaData, ...network };
}

/** Reads the existing files of SSHKEYS. @throws 66 if they contain no key */
function readKeys({ settings, hostdir }: Vm): string[] {
  const files = settings.SSHKEYS.map((file) => resolve(hostdir, file)).filter((file) => lstatOf(file));
  const keys = files.flatMap((file) => {
    const text = readNamed(requireReadableFile(file, "the SSH key")).toString();
    // It would be disclosed to the guest.
    if (text.includes("PRIVATE KEY"))
      throw new VmError("config", `refusing ${file} in SSHKEYS: it is a private key`, {
        hint: `use its public key: ${file}.pub`,
      });
    return text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.startsWith("#"));
  });
  if (keys.length > 0) return [...new Set(keys)];
  throw new VmError(
    "noInput",
    `cannot set up a login with cloud-init: no SSH key in ${settings.SSHKEYS.join(", ") || "SSHKEYS"}`,
    {
      hint: "create a key: ssh-keygen -t ed25519; or set SSHKEYS to your public keys; or use --user-data=FILE",
    },
  );
}

/** Any program with the options of mkisofs. */
function findIsoProgram(): string[] {
  if (findProgram("xorriso")) return ["xorriso", "-no_rc", "-as", "mkisofs"];
  const other = ["genisoimage", "mkisofs"].find((name) => findProgram(name));
  if (other) return [other];
  throw new VmError(
    "unavailable",
    "cannot create cloud-init's volume: xorriso, genisoimage and mkisofs are not installed",
    { hint: installHint(PACKAGES.xorriso) },
  );
}

/** Creates the volume in `directory`, atomically. */
export async function writeSeed(directory: string, seed: Seed): Promise<void> {
  const scratch = join(directory, `${PARTIAL}seed`);
  mkdirSync(scratch, { mode: 0o700 });
  const names = Object.keys(seed) as (keyof Seed)[];
  for (const name of names) writeNew(join(scratch, name), seed[name]!);
  // Names without a directory: some characters in paths are special to mkisofs.
  const options = ["-quiet", "-V", SEED_LABEL, "-J", "-r", "-o", WORK.seed];
  const what = "cannot create cloud-init's volume";
  await exec([...findIsoProgram(), ...options, ...names], { cwd: scratch, what });
  renameSync(join(scratch, WORK.seed), join(directory, WORK.seed));
  remove(scratch);
  await syncFile(join(directory, WORK.seed));
}
