/** Errors of QMP connections. Callers distinguish them by class. */
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { saysDenied, saysNoSpace } from "../lib/program-messages.ts";

/** Error object of a reply. */
export interface QmpErrorReply {
  class: string;
  desc: string;
}

/** qemu refused a command. */
export class QmpError extends VmError {
  constructor(
    command: string,
    readonly reply: QmpErrorReply,
  ) {
    super(saysNoSpace(reply.desc) ? "cannotCreate" : "io", `qemu refused ${command}: ${reply.desc}`, {
      reason: saysDenied(reply.desc) ? "denied" : undefined,
    });
  }
}

/** No greeting or reply in time: another client is connected to the monitor, or qemu hangs. */
export class QmpTimeout extends VmError {
  constructor(message: string) {
    super("busy", message, {
      hint: `run the command again; kill a VM that hangs: ${commandLine("stop", "--force")}`,
    });
  }
}

/** The connection was closed, by either side, or by qemu's exit. */
export class QmpDisconnect extends VmError {
  constructor() {
    super("io", "connection to qemu's monitor closed", {
      hint: `check that the VM still runs: ${commandLine("status")}`,
    });
  }
}

/** Members of qemu's reply are missing or of another type. */
export class QmpUnexpectedReply extends VmError {
  constructor(command: string, member: string) {
    super("io", `unexpected reply from qemu to ${command}: ${member} is missing or of another type`);
  }
}
