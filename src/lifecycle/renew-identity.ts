import { join } from "node:path";
import { checkGuestEnv } from "../config/check-guest-env.ts";
import { settingsError } from "../config/complaint.ts";
import { toJson } from "../lib/json.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { shellQuote } from "../lib/shell.ts";
import { newUuid } from "../lib/uuid.ts";
import type { Identity } from "../store/identity.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { fileError } from "../store/files.ts";
import { TPM_STATE, WORK, workingPath } from "../store/layout.ts";
import { notePlace } from "../store/places.ts";
import { findGuestEnv, resolveWork } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { describeCopy, findOther, identityOf, readIdentity, writeIdentity } from "../vm/identity.ts";
import { noVmIn } from "../store/no-vm.ts";
import { findHostdir, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";

/** Prints the VM's UUID and its former ones. @throws 66 if there is no VM, 78 if its settings cannot be read */
export function showIdentity(context: Context, json: boolean): void {
  const hostdir = findHostdir(context);
  const identity = readIdentity(hostdir);
  if (identity.uuid === undefined) {
    const path = findGuestEnv(hostdir, resolveWork(hostdir));
    if (path === undefined || !lstatOf(path)) throw noVmIn(hostdir);
    const { state, complaints } = checkGuestEnv(readSmall(path) ?? "", path, () => "");
    if (state !== "readable") throw settingsError(complaints);
    log.info("this VM has no UUID yet: the next command that changes the VM creates one");
  }
  print(context, hostdir, identity, json);
  const other = identity.uuid === undefined ? undefined : findOther(context, hostdir, identity.uuid);
  if (other !== undefined) log.warn(describeCopy(hostdir, other, identity.uuid!));
}

/**
 * Gives the VM a new UUID, and records the old one as a former one: for a copy that is used beside the original.
 * @throws 66 if there is no VM, 78 if its guest.env cannot be read, 74 if it cannot be written
 */
export async function renewIdentity(context: Context, json: boolean): Promise<void> {
  const renew = async (vm: Vm): Promise<void> => {
    const { uuid, former } = identityOf(vm);
    if (findGuestEnv(vm.hostdir, vm.work) === undefined) throw noVmIn(vm.hostdir);
    const renewed = { uuid: newUuid(), former: uuid === undefined ? former : [...former, uuid] };
    try {
      if (!writeIdentity(vm, renewed))
        throw new VmError("config", `cannot renew the UUID: the guest.env in ${vm.hostdir} cannot be read`);
    } catch (error) {
      throw fileError("cannot renew the UUID", error);
    }
    notePlace(context.cacheDirectory, renewed.uuid, vm.hostdir);
    describeTpm(vm);
    print(context, vm.hostdir, renewed, json);
  };
  await withVm(context, "renew the UUID", renew, { renews: true });
}

/** A TPM is not renewed: what the guest has sealed in it, as keys of its disks, would be lost. */
function describeTpm({ work }: Vm): void {
  if (work.state !== "present" || !lstatOf(workingPath(work.dir, TPM_STATE))) return;
  log.info(
    `the TPM is kept, with the original's keys and secrets; for a new one at the next run: rm -r ${shellQuote(join(work.dir, WORK.tpm))}`,
  );
}

function print(context: Context, directory: string, { uuid, former }: Identity, json: boolean): void {
  if (json) return context.print(toJson({ uuid: uuid ?? null, former, directory }));
  if (uuid !== undefined)
    context.print([uuid, ...former.map((item) => `former ${item}`)].map((line) => `${line}\n`).join(""));
}
