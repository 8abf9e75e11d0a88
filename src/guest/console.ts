import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { within } from "../lib/within.ts";
import { signalError, takeSignals, throwIfInterrupted } from "../process/signals.ts";
import { writeOutput } from "../process/stdout.ts";
import { rawTerminal, releaseStdin } from "../process/terminal.ts";
import { withSocketAddress } from "../process/unix-socket.ts";
import { findLine } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive } from "../vm/running.ts";

/** Ctrl-], as telnet and virsh have it. */
const LEAVE = 0x1d;

const CONNECT_MS = 10_000;

/** What was piped in is answered when the guest has been silent for so long. */
const SILENCE_MS = 1000;
/** How long a guest may take to read what was piped in. */
const DELIVERY_MS = 5000;

/**
 * Connects us to the guest's serial console, byte by byte. On a terminal until Ctrl-]; otherwise stdin is
 * typed in, and its end ends it once the guest has answered. Without any input (`</dev/null`) it prints.
 * However that is, it ends when the guest is off.
 * @throws 66 when the VM does not run, 75 when somebody else has the console
 */
export async function openConsole(context: Context): Promise<void> {
  const { work, name } = await withLive(context, "open the console", async ({ vm, work: present, qmp }) => {
    if ((await findLine(qmp, WORK.console))?.taken)
      throw new VmError("busy", "the console is in use: it has room for one", {
        hint: `to look on: ${commandLine("console", "--log", "--follow")}`,
      });
    return { work: present, name: vm.settings.GUESTNAME };
  });
  const socket = await withSocketAddress(join(work.dir, WORK.console), async (path) => {
    const connecting = connect({ path, allowHalfOpen: true });
    await within(once(connecting, "connect"), CONNECT_MS, consoleNotListening);
    return connecting;
  });
  const { stdin } = process;
  const over = Promise.withResolvers<string | undefined>();
  using _taken = takeSignals((signal) => over.reject(signalError(signal)));
  throwIfInterrupted();
  const leave = (): void => over.resolve(undefined);
  socket.on("end", () => over.resolve("the guest is off")).on("error", leave);
  socket.on("data", (bytes: Buffer) => {
    socket.pause();
    // Whoever reads our output may leave (`| head`).
    writeOutput(bytes).then((taken) => (taken ? socket.resume() : leave()), over.reject);
  });
  try {
    if (stdin.isTTY) {
      using _raw = rawTerminal();
      log.info(`the console of ${name || "the VM"}: Ctrl-] leaves, Enter may bring a prompt`);
      typeKeys(socket, leave);
      await over.promise;
    } else {
      typeInput(socket, over);
      await over.promise;
    }
  } finally {
    releaseStdin();
    socket.destroy();
  }
  const words = await over.promise;
  if (stdin.isTTY) log.info(`\n${words ?? "left the console; the guest runs on"}`);
}

function typeKeys(socket: Socket, leave: () => void): void {
  const { stdin } = process;
  stdin.on("data", (keys: Buffer) => {
    const at = keys.indexOf(LEAVE);
    socket.write(at < 0 ? keys : keys.subarray(0, at));
    if (at >= 0) leave();
  });
  stdin.once("end", leave).resume();
}

/** Types what is piped in; its end is the end, once the guest has had its say. */
function typeInput(socket: Socket, over: PromiseWithResolvers<string | undefined>): void {
  const { stdin } = process;
  let typed = false;
  stdin.on("data", (bytes: Buffer) => {
    typed = true;
    if (socket.write(bytes)) return;
    stdin.pause();
    socket.once("drain", () => stdin.resume());
  });
  stdin.once("end", () => {
    if (!typed) return;
    const deliver = (): void => {
      // qemu takes the rest as fast as the guest does, and closes then.
      socket.end();
      setTimeout(() => over.reject(notTaken()), DELIVERY_MS).unref();
    };
    let silence = setTimeout(deliver, SILENCE_MS);
    socket.on("data", () => {
      clearTimeout(silence);
      silence = setTimeout(deliver, SILENCE_MS);
    });
    void over.promise.catch(() => {}).finally(() => clearTimeout(silence));
  });
  stdin.resume();
}

const consoleNotListening = (): VmError =>
  new VmError("io", "cannot open the console: qemu does not listen on it");

const notTaken = (): VmError =>
  new VmError("io", "the guest did not read all that was typed: nothing there listens on the console");
