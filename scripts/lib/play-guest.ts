/**
 * Plays the person in front of a running guest, by QMP.
 *   bun scripts/lib/play-guest.ts PID QMP-SOCKET ACTION…
 * PID is of the program that runs the guest: when that has ended, nothing is waited for any more.
 * Actions, in order:
 *   prompt:KEY:TEXT  press KEY (`c`, `ctrl-b`) until the screen shows TEXT, a prompt
 *   see:TEXT         wait until the screen shows a line that begins with TEXT
 *   type:TEXT        type TEXT and Enter, at the prompt
 *   shot:FILE.png    save a picture of the screen
 */
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { pngOfPpm } from "../../src/lib/png.ts";
import { WORK } from "../../src/store/layout.ts";

const LOOK_MS = 200;
/** A key that comes before the guest listens is lost, so it is pressed again after so many looks. */
const LOOKS_PER_KEY = 10;
/** A guest without KVM on a busy machine is slow. For each action. */
const LIMIT_MS = 180_000;
/** Keys whose names (qemu's QKeyCode) are not the letter itself. */
const KEYS: Record<string, string[]> = {
  " ": ["spc"],
  "-": ["minus"],
  "=": ["equal"],
  ".": ["dot"],
  "/": ["slash"],
  _: ["shift", "minus"],
  "(": ["shift", "9"],
  ")": ["shift", "0"],
  "|": ["shift", "backslash"],
};

/** Ctrl-u empties the line, in GRUB and in iPXE. */
const CLEAR_LINE = ["ctrl", "u"];

const [pid = "", socket = "", ...actions] = process.argv.slice(2);
let deadline = Date.now() + LIMIT_MS;
let promptText = "";

function isRunning(): boolean {
  try {
    return process.kill(Number(pid), 0);
  } catch {
    return false;
  }
}

async function pause(): Promise<void> {
  if (!isRunning()) throw new Error("the guest has ended");
  if (Date.now() > deadline) throw new Error(`waited ${LIMIT_MS / 1000} s in vain`);
  await Bun.sleep(LOOK_MS);
}

async function connect(): Promise<QmpClient> {
  for (;;) {
    try {
      return await QmpClient.connect(socket);
    } catch {
      await pause();
    }
  }
}

/** The screen in text mode: 80×25 characters, each with its colours, in the PC's memory at 0xb8000. */
async function screenText(qmp: QmpClient): Promise<string> {
  const dump = String(
    await qmp.executeUntyped("human-monitor-command", { "command-line": "xp /2000hx 0xb8000" }),
  );
  const cells = [...dump.matchAll(/ 0x..(..)/g)].map(([, code]) => Number.parseInt(code!, 16));
  return String.fromCharCode(...cells).replaceAll(/.{80}/gs, (line) => `${line.trimEnd()}\n`);
}

async function press(qmp: QmpClient, keys: readonly string[]): Promise<void> {
  await qmp.executeUntyped("send-key", {
    keys: keys.map((data) => ({ type: "qcode", data })),
    "hold-time": 40,
  });
  // send-key does not wait for the guest, whose firmware keeps few keys.
  await Bun.sleep(120);
}

const isSeen = async (qmp: QmpClient, text: string): Promise<boolean> =>
  `\n${await screenText(qmp)}\n`.includes(`\n${text}`);

async function see(qmp: QmpClient, text: string, key?: string): Promise<void> {
  for (let look = 0; !(await isSeen(qmp, text)); look++) {
    if (key !== undefined && look % LOOKS_PER_KEY === 0) await press(qmp, key.split("-"));
    await pause();
  }
}

/**
 * Types at the prompt. The firmware keeps 15 keys and drops further ones, so a guest that is still at the last command is
 * waited for, and Enter follows once the screen shows the whole line; until then it is emptied and typed again.
 */
async function type(qmp: QmpClient, text: string): Promise<void> {
  for (;;) {
    await see(qmp, `${promptText}\n\n`);
    for (const letter of text) await press(qmp, KEYS[letter] ?? [letter]);
    if (await isSoonSeen(qmp, `${promptText} ${text}\n\n`)) return press(qmp, ["ret"]);
    await press(qmp, CLEAR_LINE);
  }
}

async function isSoonSeen(qmp: QmpClient, text: string): Promise<boolean> {
  for (let look = 0; look < LOOKS_PER_KEY; look++) {
    if (await isSeen(qmp, text)) return true;
    await pause();
  }
  return false;
}

async function saveScreen(qmp: QmpClient, file: string): Promise<void> {
  // In its jail qemu can write this file only.
  const ppm = join(dirname(socket), WORK.screen);
  await qmp.execute("screendump", { filename: ppm });
  writeFileSync(file, pngOfPpm(readFileSync(ppm)));
  truncateSync(ppm);
}

async function act(qmp: QmpClient, action: string): Promise<void> {
  const [, verb, rest = ""] = /^(\w+):(.*)$/s.exec(action) ?? [];
  const [, key = "", text = ""] = /^([^:]+):(.*)$/s.exec(rest) ?? [];
  switch (verb) {
    case "prompt":
      await see(qmp, text, key);
      promptText = text;
      return press(qmp, CLEAR_LINE); // the key may have been pressed once too often
    case "see":
      return see(qmp, rest);
    case "type":
      return type(qmp, rest);
    case "shot":
      return saveScreen(qmp, rest);
    default:
      throw new Error("no such action");
  }
}

let doing = "connect";
let qmp: QmpClient | undefined;

async function actAll(client: QmpClient): Promise<void> {
  for (doing of actions) {
    deadline = Date.now() + LIMIT_MS;
    await act(client, doing);
  }
}

try {
  qmp = await connect();
  const gone = qmp.closed.then(() => {
    // The last action may well end the guest.
    if (doing !== actions.at(-1)) throw new Error("the guest has ended");
  });
  await Promise.race([actAll(qmp), gone]);
} catch (error) {
  console.error(`play-guest: ${doing}: ${(error as Error).message}`);
  const screen = qmp && (await Promise.race([screenText(qmp), qmp.closed]));
  if (screen) console.error(`the guest's screen:\n${screen.replaceAll(/^\s*\n/gm, "")}`);
  process.exitCode = 1;
}
qmp?.close();
process.exit();
