import { join } from "node:path";
import { badOption } from "../config/complaint.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { ARCH } from "../machine/arch.ts";
import { KEY_NAMES, KEYS, MAX_CHORD, parseChord, parseTyping, type Chord } from "../machine/keys.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { isListening } from "../process/unix-socket.ts";
import type { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive } from "../vm/running.ts";

export interface SendKeyRequest {
  chords: Chord[];
  /** Pause after each key. */
  delayMs: number;
}

interface SendKeyWords {
  keys: string[];
  texts: string[];
  delay: string | undefined;
}

const MAX_DELAY_MS = 10_000;

/** @throws 64 */
export function parseSendKey({ keys, texts, delay = "0" }: SendKeyWords): SendKeyRequest {
  const chords = keys.map((word) => parseChord(word) ?? refuseKey(word));
  for (const text of texts) {
    const typing = parseTyping(text);
    if ("untypable" in typing)
      throw badOption("--text", typing.untypable, "characters of a US keyboard, \\n \\t \\e and \\\\");
    chords.push(...typing.chords);
  }
  if (chords.length === 0)
    throw new VmError("usage", "sendkey: KEY or --text is missing", {
      hint: `such as: ${commandLine("sendkey", "ctrl-alt-f2")}, ${commandLine("sendkey", "--text", "root\\n")}`,
    });
  if (!/^\d{1,5}$/.test(delay) || Number(delay) > MAX_DELAY_MS)
    throw badOption("--delay", delay, `a whole number of milliseconds, at most ${MAX_DELAY_MS}`);
  return { chords, delayMs: Number(delay) };
}

function refuseKey(word: string): never {
  const names = word.split("-");
  if (names.includes(""))
    throw new VmError("usage", `sendkey: '${word}': a key is missing beside -`, {
      hint: "keys are joined by -, as in ctrl-alt-f2; the key - itself is called minus",
    });
  const wrong = names.find((name) => parseChord(name) === undefined);
  if (wrong === undefined)
    throw new VmError("usage", `sendkey: '${word}' is ${names.length} keys at once, at most ${MAX_CHORD}`);
  const meant = names.map((name) => (parseChord(name) ? name : nearest(name, KEY_NAMES)));
  const similar = meant.includes(undefined) ? "" : `did you mean: ${meant.join("-")}\n`;
  throw new VmError("usage", `sendkey: there is no key '${wrong}'`, {
    hint: `${similar}keys are joined by -; names: ${KEYS.join(" ")}`,
  });
}

/**
 * Presses keys of the running guest's keyboard, one after the other, each when the guest has read the one before.
 * @throws 69 in a job, 75 if the guest is paused, 74 if it does not read its keyboard
 */
export async function sendKeys(context: Context, { chords, delayMs }: SendKeyRequest): Promise<void> {
  await withLive(context, "send keys", async ({ vm, work, qmp }) => {
    if (await isListening(join(work.dir, WORK.control)))
      throw new VmError("unavailable", "cannot send keys: a job is running, which has no keyboard");
    const keyboard = ARCH[vm.settings.QEMUARCH].usbKeyboard ? USB : PS2;
    for (const [index, chord] of chords.entries()) {
      throwIfInterrupted();
      if (!(await qmp.execute("query-status")).running)
        throw new VmError("busy", `the guest is paused: it has received ${index} of ${chords.length} keys`, {
          hint: `resume it first: ${commandLine("resume")}`,
        });
      await pressKeys(qmp, keyboard, chord);
      if (!(await keyboard.isRead(qmp)))
        throw new VmError(
          "io",
          `the guest does not read its keyboard: it has received ${index} of ${chords.length} keys`,
        );
      await Bun.sleep(delayMs);
    }
  });
}

interface Keyboard {
  /** Between two changes of a key: qemu's queue of changes is asynchronous, and has no event. */
  holdMs: number;
  /** Waits until the guest has read what was sent. */
  isRead: (qmp: QmpClient) => Promise<boolean>;
}

/** A USB keyboard keeps 16 changes (qemu's hw/input/hid.c), which guests poll for every 10 ms. */
const USB: Keyboard = { holdMs: 20, isRead: () => Promise.resolve(true) };

/** The guest may have other work, or be slow to start. */
const READ_MS = 10_000;
const POLL_MS = 5;
/** Status of the i8042: the output buffer, behind which up to 16 bytes wait (hw/input/ps2.c), is full. */
const STATUS_PORT = "0x64";
const OUTPUT_FULL = 1;

/** Reading the status has no effect on the guest. */
const PS2: Keyboard = {
  holdMs: 2,
  async isRead(qmp) {
    for (const deadline = Date.now() + READ_MS; Date.now() < deadline; await Bun.sleep(POLL_MS)) {
      throwIfInterrupted();
      const shown = await qmp.execute("human-monitor-command", { "command-line": `i /b ${STATUS_PORT}` });
      const status = /= (0x[0-9a-f]+)/.exec(shown)?.[1];
      // qemu shows it in another way: time alone paces the keys.
      if (status === undefined) return USB.isRead(qmp);
      if ((Number(status) & OUTPUT_FULL) === 0) return true;
    }
    return false;
  },
};

/** Presses keys in order, and releases them. */
async function pressKeys(qmp: QmpClient, { holdMs }: Keyboard, chord: Chord): Promise<void> {
  const keys = chord.map((data) => ({ type: "qcode", data }) as const);
  await qmp.execute("send-key", { keys, "hold-time": holdMs });
  await Bun.sleep(2 * chord.length * holdMs);
}
