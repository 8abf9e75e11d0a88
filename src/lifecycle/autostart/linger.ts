import { join } from "node:path";
import { lstatOf } from "../../lib/read-file.ts";
import { callerUid, findUserName } from "../../lib/trust.ts";

/** A user with lingering has a file here (systemd-logind). */
const LINGER = "/var/lib/systemd/linger";

/** Why the user's systemd does not start with the host; undefined if it does. */
export function findLingerProblem(): string | undefined {
  if (lstatOf(join(LINGER, findUserName(callerUid())))) return undefined;
  return "your systemd starts when you log in, and ends with your last session; to start it with the host: loginctl enable-linger";
}
