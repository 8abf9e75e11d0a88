import { basename } from "node:path";
import { commandLineFor } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { counted } from "../../lib/text.ts";
import type { Context } from "../../vm/context.ts";
import { openUser } from "../../vm/find.ts";
import { listRemote } from "./list.ts";
import { openRepository } from "./restic.ts";
import { TAG } from "./tags.ts";

/**
 * Tags the snapshots of a VM in the repository with its new name, if there is a repository. They keep the path that they
 * were pushed from.
 * @throws 74 if the VM is renamed, but these are not
 */
export async function renameRemote(
  context: Context,
  { to, uuid }: { to: string; uuid: string },
): Promise<void> {
  const place = (await openUser(context)).settings.SNAPSHOT_REPO || (context.env.RESTIC_REPOSITORY ?? "");
  if (place === "" || uuid === "") return;
  const name = basename(to);
  try {
    const repository = await openRepository(context);
    const old = (await listRemote(repository)).filter((item) => item.uuid === uuid && item.vm !== name);
    for (const { id, vm, name: snapshot } of old)
      await repository.run(["tag", "--remove", TAG.vm(vm), "--add", TAG.vm(name), id], {
        what: `cannot tag ${snapshot} in the repository`,
      });
    if (old.length > 0) log.info(`  ${counted(old.length, "snapshot")} in the repository renamed`);
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError("io", `the VM is renamed, but not its snapshots in the repository: ${error.message}`, {
      cause: error,
      hint: `${error.hint === undefined ? "" : `${error.hint}\n`}repeat it: ${commandLineFor(to, "rename", name)}`,
    });
  }
}
