import { commandLine } from "../lib/command-line.ts";

/** What a guest lacks without a program. */
const LOST: Record<string, string> = {
  pasta: "the network has no access to the outside",
  dnsmasq: "the network gives no addresses and names",
  swtpm: "the guest's TPM does not answer",
};

/** `passt has exited: the card has no connection; restart the VM: vm restart` */
export const explainExited = (programs: readonly string[]): string =>
  `${programs.map((program) => `${program} has exited: ${LOST[program] ?? "the card has no connection"}`).join("; ")}; restart the VM: ${commandLine("restart")}`;
