import { resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import {
  buildMetaData,
  buildNetworkConfig,
  buildUserData,
  findUserDataProblem,
  hostNameOf,
} from "../machine/cloud-config.ts";
import type { Nic } from "../machine/types.ts";
import type { Context } from "../vm/context.ts";
import type { CloudInitRequest } from "./create-options.ts";
import { lstatOf, readNamed, requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "../vm/find.ts";
import { requireIsoProgram, type Seed } from "../vm/seed-volume.ts";

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
  requireIsoProgram();
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
