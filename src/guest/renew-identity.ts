import { randomBytes } from "../lib/crypto.ts";
import { commandLineFor } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { shellQuote } from "../lib/shell.ts";
import { aboutOneVm } from "../lib/vm-scope.ts";
import { JOB_FILES } from "../rescue/assets.ts";
import type { Context } from "../vm/context.ts";
import { execInGuest } from "./exec.ts";

/**
 * What the runner of jobs defines, for the system itself. Before SSH host keys are made, the kernel gets random numbers that
 * no other clone has: RNDRESEEDCRNG (0x5207, linux/random.h), as what is only written to /dev/urandom counts minutes later.
 */
const prelude = (hostName: string, seed: string): string => `set -eu
exec >/dev/null
fatal() { printf 'fatal: %s\\n' "$*" >&2; exit 1; }
run() { "$@"; }
mount-system() { :; }
ROOT=
INDIR=$(mktemp -d)
trap 'rm -rf -- "$INDIR"' EXIT
printf '%s\\n' ${shellQuote(hostName)} >"$INDIR/HOSTNAME"
printf %s ${seed} >/dev/urandom
perl -e 'open(F, ">", "/dev/urandom") && ioctl(F, 0x5207, 0)' 2>/dev/null ||
  python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)' 2>/dev/null || :
`;

/** The running programs have the old values. */
const POSTLUDE = `
if [ -n "$host" ]; then hostname "$host" || :; fi
if command -v systemctl; then systemctl try-reload-or-restart ssh.service sshd.service || :; fi
`;

/**
 * Gives running guests a host name, a machine-id and SSH host keys of their own by their agents, with the script of the job
 * new-identity. Warns of those that keep the original's.
 */
export async function renewRunningGuests(
  context: Context,
  clones: readonly { directory: string; hostName: string }[],
): Promise<void> {
  for (const { directory, hostName } of clones)
    await aboutOneVm(directory, () => renewGuest(context, directory, hostName));
}

async function renewGuest(context: Context, hostdir: string, hostName: string): Promise<void> {
  const script = `${prelude(hostName, randomBytes(64).toString("hex"))}${JOB_FILES["new-identity.job"]!}${POSTLUDE}`;
  const own = { ...context, hostdir, options: { ...context.options, hostdir } };
  try {
    await execInGuest(own, ["bash", "-s"], Buffer.from(script));
    log.info(`the guest of ${hostdir} has a new host name, machine-id and SSH host keys`);
  } catch (error) {
    if (!(error instanceof VmError) || error instanceof SignalError) throw error;
    log.warn(
      `the guest of ${hostdir} still has the host name, machine-id and SSH host keys of the original: ${error.message}; renew them once it is off: ${commandLineFor(hostdir, "job", "new-identity")}`,
    );
  }
}
