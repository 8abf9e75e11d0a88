import { VmError } from "../lib/errors.ts";
import { chooseRemote } from "../snapshot/remote/choose.ts";
import { fetchSnapshot } from "../snapshot/remote/fetch.ts";
import { listRemote, readLocalVm } from "../snapshot/remote/list.ts";
import { openRemote } from "../snapshot/remote/mount.ts";
import { openRepository } from "../snapshot/remote/restic.ts";
import { makeTemporary } from "../store/temporary.ts";
import type { Context } from "../vm/context.ts";

/** A directory whose `backups` has a snapshot of the repository. */
interface RemotePlace extends AsyncDisposable {
  hostdir: string;
  name: string;
  /** Why reads failed, if data of the repository is missing or damaged. */
  problem(): VmError | undefined;
}

/** Reads the snapshot where it is; without FUSE it is fetched to TMPDIR. */
export async function openInRepository(
  context: Context,
  hostdir: string,
  name: string | undefined,
): Promise<RemotePlace> {
  try {
    const files = await openRemote(context, name);
    const dispose = (): PromiseLike<void> => files[Symbol.asyncDispose]();
    const { hostdir: view, snapshot, problem } = files;
    return { hostdir: view, name: snapshot.name, problem, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    if (!(error instanceof VmError) || error.reason !== "no-fuse") throw error;
  }
  const repository = await openRepository(context);
  const wanted = chooseRemote(await listRemote(repository), readLocalVm(context), name);
  const temporary = makeTemporary(hostdir, context.tmpdir);
  try {
    await fetchSnapshot(repository, temporary.dir, wanted);
  } catch (error) {
    temporary[Symbol.dispose]();
    throw error;
  }
  return {
    hostdir: temporary.dir,
    name: wanted.name,
    problem: () => undefined,
    [Symbol.asyncDispose]: async () => temporary[Symbol.dispose](),
  };
}
