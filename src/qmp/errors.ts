/** How a conversation with qemu fails. Callers tell these apart by their class. */
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { saysDenied, saysNoSpace } from "../lib/program-messages.ts";

/** qemu's own words for why it refused a command. */
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

/** qemu has not greeted or replied in time: another client has its monitor, or it hangs. */
export class QmpTimeout extends VmError {
  constructor(message: string) {
    super("busy", message, {
      hint: `try again; one that hangs is ended, as by a power cut: ${commandLine("stop", "--force")}`,
    });
  }
}

/** The connection was closed, by qemu or its death, or by us. */
export class QmpDisconnect extends VmError {
  constructor() {
    super("io", "qemu has closed the conversation", {
      hint: `see whether the VM still runs: ${commandLine("status")}`,
    });
  }
}

/** qemu's reply lacks what it must have. */
export class QmpMisfit extends VmError {
  constructor(command: string, place: string) {
    super("io", `qemu's reply to ${command} is not understood: ${place}`);
  }
}
