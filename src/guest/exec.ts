import { join } from "node:path";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { commandLine } from "../lib/command-line.ts";
import { EXIT, StatusError, VmError } from "../lib/errors.ts";
import { saysDisabled, saysNoSuchFile } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { signalError, takeSignals } from "../process/signals.ts";
import { writeOutput } from "../process/stdout.ts";
import { readStdin, writeErrorOutput } from "../process/terminal.ts";
import { AgentError, AgentTimeout, GuestAgent } from "../qmp/agent.ts";
import { watchAgentPort } from "../live/watch-agent.ts";
import { findChardev } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { withLive } from "../vm/running.ts";

/** A working agent answers in a tenth of this. */
const SILENT_MS = 3000;
/** Other commands use the agent as well, for short requests. */
const QUEUE_MS = 10_000;
/** How long other commands may use it while the program runs, whose end must not be missed. */
const LOOK_QUEUE_MS = 120_000;
/** A command is one line of JSON, which the agent limits to 64 MiB; base64 makes 4 bytes of 3. */
const MAX_INPUT_BYTES = 40 << 20;
/** Polling intervals for the agent: short at first, later longer, to let other commands use it. */
const FIRST_LOOKS_MS = [10, 20, 40, 80, 160, 320];
const LOOK_MS = 400;
const STDIN_HINT_MS = 3000;
const MAX_STATUS = 255;
const MAX_SIGNAL = 127;

/** qemu's qga/qapi-schema.json, GuestExecStatus. */
interface ExecStatus {
  exited: boolean;
  exitcode?: number;
  signal?: number;
  "out-data"?: string;
  "err-data"?: string;
  "out-truncated"?: boolean;
  "err-truncated"?: boolean;
}

/**
 * Runs a program in the guest through its agent, with stdin (unless it is a terminal), and prints its output.
 * @param given its input, instead of stdin
 * @throws the program's status, 128+N for its signal; 69 without an agent, 124 on `--timeout`
 */
export async function execInGuest(context: Context, argv: readonly string[], given?: Buffer): Promise<void> {
  const stop = new AbortController();
  using _taken = takeSignals((signal) => stop.abort(signalError(signal)));
  const { work, taken, timeout } = await withLive(context, "run a program in the guest", async (live) => {
    const line = await findChardev(live.qmp, WORK.agent);
    if (!line?.guestOpen) throw noAgent(line !== undefined);
    return { work: live.work, taken: line.connected, timeout: live.vm.settings.TIMEOUT };
  });
  const input = given ?? (await readInput(stop.signal));
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(() => stop.abort(timeUp(argv[0]!, timeout)), timeout * 1000);
  try {
    const result = await runToEnd(work.dir, argv, input, stop.signal, taken ? QUEUE_MS : SILENT_MS);
    await printOutcome(argv[0]!, result);
  } catch (error) {
    if (!(error instanceof AgentTimeout)) throw error;
    throw taken ? lineTaken() : noAgent(true);
  } finally {
    clearTimeout(timer);
  }
}

async function runToEnd(
  workdir: string,
  argv: readonly string[],
  input: Buffer,
  stop: AbortSignal,
  patienceMs: number,
): Promise<ExecStatus> {
  const socket = join(workdir, WORK.agent);
  using port = watchAgentPort(workdir);
  const over = AbortSignal.any([stop, port.closed]);
  let pid: number | undefined;
  try {
    over.throwIfAborted();
    {
      using agent = await GuestAgent.connect(socket, patienceMs, over);
      pid = await begin(agent, argv, input);
      for (const delay of FIRST_LOOKS_MS) {
        const status = await look(agent, pid);
        if (status.exited) return status;
        await sleep(delay, undefined, { signal: over });
      }
    }
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal: over });
      using agent = await GuestAgent.connect(socket, QUEUE_MS, over, LOOK_QUEUE_MS);
      const status = await look(agent, pid);
      if (status.exited) return status;
    }
  } catch (error) {
    if (stop.aborted) {
      if (pid !== undefined) await killInGuest(socket, pid);
      throw stop.reason;
    }
    throw port.closed.aborted ? agentExited(argv[0]!) : error;
  }
}

async function begin(agent: GuestAgent, argv: readonly string[], input: Buffer): Promise<number> {
  const [path = "", ...arg] = argv;
  const data = input.length > 0 ? { "input-data": input.toString("base64") } : {};
  try {
    const reply = await agent.execute("guest-exec", { path, arg, "capture-output": true, ...data });
    const pid = fieldsOf(reply).pid;
    if (!Number.isSafeInteger(pid)) throw oddAnswer();
    return pid as number;
  } catch (error) {
    throw error instanceof AgentError ? explainRefusal(error, path) : error;
  }
}

const look = async (agent: GuestAgent, pid: number): Promise<ExecStatus> =>
  parseExecStatus(await agent.execute("guest-exec-status", { pid }));

const fieldsOf = (reply: unknown): Record<string, unknown> =>
  typeof reply === "object" && reply !== null ? (reply as Record<string, unknown>) : {};

const oddAnswer = (): VmError =>
  new VmError("io", "cannot read the answer of the guest agent: the exit status of the program is unknown");

/** Pure: parses GuestExecStatus, which comes from the guest. @throws 74 for a malformed answer */
export function parseExecStatus(reply: unknown): ExecStatus {
  const fields = fieldsOf(reply);
  const numbers = [fields.exitcode, fields.signal].filter((value) => value !== undefined);
  const texts = [fields["out-data"], fields["err-data"]].filter((value) => value !== undefined);
  if (
    typeof fields.exited !== "boolean" ||
    !numbers.every((value) => Number.isSafeInteger(value)) ||
    !texts.every((value) => typeof value === "string")
  )
    throw oddAnswer();
  return fields as unknown as ExecStatus;
}

/** The agent cannot kill a program that it started; kill(1) in the guest can. */
async function killInGuest(socket: string, pid: number): Promise<void> {
  try {
    using agent = await GuestAgent.connect(socket, SILENT_MS);
    await agent.execute("guest-exec", { path: "kill", arg: ["-TERM", String(pid)] });
  } catch {
    log.warn(`the program may still be running in the guest (pid ${pid})`);
  }
}

async function readInput(over: AbortSignal): Promise<Buffer> {
  const hint = setTimeout(
    () => log.info("waiting for the end of stdin; without input: </dev/null"),
    STDIN_HINT_MS,
  );
  try {
    const input = await readStdin(over);
    if (input.length <= MAX_INPUT_BYTES) return input;
  } finally {
    clearTimeout(hint);
  }
  throw new VmError(
    "io",
    `cannot send the input: the guest agent accepts at most ${MAX_INPUT_BYTES >> 20} MiB`,
    {
      hint: `copy a file: ${commandLine("cp", "FILE", ":/tmp/")}`,
    },
  );
}

/** Prints its output, and throws its status. */
async function printOutcome(program: string, result: ExecStatus): Promise<void> {
  try {
    await writeOutput(Buffer.from(result["out-data"] ?? "", "base64"));
  } finally {
    await writeErrorOutput(Buffer.from(result["err-data"] ?? "", "base64"));
  }
  if (result["out-truncated"] || result["err-truncated"])
    log.warn(
      "the output is truncated: the guest agent keeps 16 MiB; write it to a file and copy that with cp",
    );
  const { signal, exitcode = 0 } = result;
  if (signal)
    throw new StatusError(`${program} was killed by ${signalName(signal)}`, 128 + (signal & MAX_SIGNAL));
  // Windows has 32-bit statuses: none of them may become 0 here.
  if (exitcode !== 0)
    throw new StatusError(`${program} ended with status ${exitcode}`, exitcode & MAX_STATUS || EXIT.other);
}

const signalName = (number: number): string =>
  Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`;

function explainRefusal(error: AgentError, path: string): VmError {
  const { kind, description } = error;
  if (kind === "CommandNotFound" || saysDisabled(description))
    return new VmError(
      "unavailable",
      "cannot run a program in the guest: guest-exec is disabled in the guest agent",
      {
        hint: "enable guest-exec in the guest: /etc/qemu/qemu-ga.conf or /etc/sysconfig/qemu-ga",
      },
    );
  if (!saysNoSuchFile(description)) return error;
  return new VmError("noInput", `cannot run ${path}: no such program in the guest`);
}

const noAgent = (hasLine: boolean): VmError =>
  new VmError("unavailable", "cannot run a program in the guest: no guest agent answers", {
    hint: hasLine
      ? "install qemu-guest-agent there and start it: systemctl enable --now qemu-guest-agent (a guest that boots needs a moment)"
      : `restart the VM, which was started without a channel for it: ${commandLine("restart")}`,
  });

const agentExited = (program: string): VmError =>
  new VmError(
    "io",
    `the exit status of ${program} is unknown: the guest agent exited, was restarted, or ended with the guest`,
    {
      hint: "look at it in the guest: systemctl status qemu-guest-agent",
    },
  );

const lineTaken = (): VmError =>
  new VmError("busy", "cannot use the guest agent: another process is using it");

const timeUp = (program: string, seconds: number): VmError =>
  new VmError("timeout", `${program} did not end within ${seconds} s`);
