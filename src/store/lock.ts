import { closeSync, constants, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { fileError } from "./files.ts";
import { HOST } from "./layout.ts";

const WAIT_MS = 3000;
const RETRY_MS = 40;

/** One VM, one change at a time: held until disposed of, or until the kernel ends the process. */
export interface VmLock extends Disposable {
  readonly hostdir: string;
}

/**
 * Takes the VM's lock, waiting briefly.
 * @param command what the holder is doing, for others to read
 * @throws 75 naming the holder
 */
export async function lockVm(hostdir: string, command: string, waitMs = WAIT_MS): Promise<VmLock> {
  const path = join(hostdir, HOST.lock);
  const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
  let fd: number;
  try {
    fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  } catch (error) {
    throw fileError(`cannot lock ${hostdir}`, error);
  }
  const deadline = Date.now() + waitMs;
  // flock(2) has no event to wait for; a blocking call would stop signals from being heard.
  while (!flock(fd, LOCK_EX | LOCK_NB)) {
    throwIfInterrupted();
    if (Date.now() >= deadline) {
      const holder = readHolder(fd);
      closeSync(fd);
      throw new VmError("busy", `cannot ${command}: another command is changing this VM: ${holder}`, {
        hint: "wait until it has finished and try again",
      });
    }
    await Bun.sleep(RETRY_MS);
  }
  try {
    ftruncateSync(fd, 0);
    writeSync(fd, `${command} (pid ${process.pid}) since ${new Date().toISOString()}\n`, 0);
  } catch {
    // The text is for people only: a full disk must not keep anybody from destroying.
  }
  return { hostdir, [Symbol.dispose]: () => closeSync(fd) };
}

function readHolder(fd: number): string {
  const buffer = Buffer.alloc(200);
  const text = buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, 0));
  return text.split("\n")[0]!.replaceAll(/\p{Cc}/gu, "?") || "unknown";
}
