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
import { findChardev } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive } from "../vm/running.ts";

/** Ctrl-], as telnet and virsh have it. */
const LEAVE = 0x1d;

const CONNECT_MS = 10_000;

/** Piped input counts as answered when there is no output for this long. */
const SILENCE_MS = 1000;
/** Time limit for the guest to read piped input. */
const DELIVERY_MS = 5000;

/**
 * Connects stdin and stdout to the guest's serial console, byte by byte. On a terminal until Ctrl-]; otherwise stdin is
 * sent, and its end disconnects once the guest has answered. With empty input (`</dev/null`) only output is printed. In
 * any case it ends when the guest is off.
 * @throws 66 if the VM is not running, 75 if another process is connected to the console
 */
export async function openConsole(context: Context): Promise<void> {
  const { work, name } = await withLive(context, "open the console", async ({ vm, work: present, qmp }) => {
    if ((await findChardev(qmp, WORK.console))?.connected)
      throw new VmError("busy", "cannot open the console: another process is connected to it", {
        hint: `watch its output: ${commandLine("console", "--log", "--follow")}`,
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
    // The reader of stdout may exit (`| head`).
    writeOutput(bytes).then((taken) => (taken ? socket.resume() : leave()), over.reject);
  });
  try {
    if (stdin.isTTY) {
      using _raw = rawTerminal();
      log.info(`console of ${name || "the VM"}: Ctrl-] disconnects, Enter may show a prompt`);
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
  if (stdin.isTTY) log.info(`\n${words ?? "disconnected from the console; the guest keeps running"}`);
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

/** Sends piped input; disconnects at its end, once the guest has answered. */
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
      // qemu passes the rest at the guest's speed, then closes the connection.
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
  new VmError("io", "cannot send all input: nothing in the guest reads the console");
