import { mkdirSync, renameSync } from "node:fs";
import { join, resolve } from "node:path";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { log } from "../lib/log.ts";
import {
  buildMetaData,
  buildUserData,
  findUserDataProblem,
  hostNameOf,
  SEED_LABEL,
} from "../machine/cloud-config.ts";
import { exec, findProgram } from "../process/exec.ts";
import { remove } from "../store/remove.ts";
import { syncFile, writeNew } from "../store/files.ts";
import { PARTIAL, WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import type { CloudInitRequest } from "./create-options.ts";
import { lstatOf, readNamed, requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "../vm/find.ts";

/** The volume that tells cloud-init what to do: its files by name. */
export type Seed = Record<"user-data" | "meta-data", string | Buffer>;

/**
 * What cloud-init will be told. Everything that can be missing is looked for here.
 * @throws 66 without the user-data or any key, 69 when nothing here makes an ISO 9660 volume
 */
export function planSeed(context: Context, vm: Vm, guestName: string, request: CloudInitRequest): Seed {
  isoMaker();
  const metaData = buildMetaData(`vm-${crypto.randomUUID()}`, hostNameOf(guestName));
  if (request.userData !== undefined) {
    const file = requireReadableFile(resolve(context.cwd, request.userData), "the user-data");
    const userData = readNamed(file);
    const problem = findUserDataProblem(userData);
    if (problem !== undefined) log.warn(`cloud-init will ignore the user-data ${file}: ${problem}`);
    return { "user-data": userData, "meta-data": metaData };
  }
  const keys = readKeys(vm);
  const user = request.user ?? "the image's own user";
  const login = request.user === undefined ? `; log in: ${context.prog} ssh --user=NAME` : "";
  log.info(
    `cloud-init lets ${user} in by ${keys.length === 1 ? "one SSH key" : `${keys.length} SSH keys`}${login}`,
  );
  return { "user-data": buildUserData(request.user, keys), "meta-data": metaData };
}

/** The keys of those files of SSHKEYS that are there. */
function readKeys({ settings, hostdir }: Vm): string[] {
  const files = settings.SSHKEYS.map((file) => resolve(hostdir, file)).filter((file) => lstatOf(file));
  const keys = files.flatMap((file) => {
    const text = readNamed(requireReadableFile(file, "the SSH key")).toString();
    // Named by mistake, it would be given away.
    if (text.includes("PRIVATE KEY"))
      throw new VmError("config", `SSHKEYS names the private key ${file}`, {
        hint: `name its public half, ${file}.pub`,
      });
    return text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.startsWith("#"));
  });
  if (keys.length > 0) return [...new Set(keys)];
  throw new VmError(
    "noInput",
    `cloud-init would let nobody in: no key in ${settings.SSHKEYS.join(", ") || "SSHKEYS"}`,
    {
      hint: "make a key: ssh-keygen -t ed25519; or name your public keys in SSHKEYS; or write --user-data=FILE",
    },
  );
}

/** Each takes mkisofs' own words. */
function isoMaker(): string[] {
  if (findProgram("xorriso")) return ["xorriso", "-no_rc", "-as", "mkisofs"];
  const other = ["genisoimage", "mkisofs"].find((name) => findProgram(name));
  if (other) return [other];
  throw new VmError(
    "unavailable",
    "cloud-init's volume needs xorriso, genisoimage or mkisofs: none is installed",
    { hint: installHint(PACKAGES.xorriso) },
  );
}

/** Makes the volume among the working files in `directory`. */
export async function writeSeed(directory: string, seed: Seed): Promise<void> {
  const scratch = join(directory, `${PARTIAL}seed`);
  mkdirSync(scratch, { mode: 0o700 });
  const names = Object.keys(seed) as (keyof Seed)[];
  for (const name of names) writeNew(join(scratch, name), seed[name]);
  // Names without a directory: mkisofs gives some characters in paths a meaning of its own.
  const options = ["-quiet", "-V", SEED_LABEL, "-J", "-r", "-o", WORK.seed];
  const what = "cannot make cloud-init's volume";
  await exec([...isoMaker(), ...options, ...names], { cwd: scratch, what });
  renameSync(join(scratch, WORK.seed), join(directory, WORK.seed));
  remove(scratch);
  await syncFile(join(directory, WORK.seed));
}
