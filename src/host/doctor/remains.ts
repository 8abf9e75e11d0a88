/** What earlier commands, and settings files, have left that something else needs otherwise. */
import { shellQuote } from "../../lib/shell.ts";
import { plain } from "../../lib/text.ts";
import { listDeadMounts } from "../../process/mounts.ts";
import { explainCommandLabel } from "../../vm/command-labels.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import type { Check } from "./check.ts";

/** Where the sshfs of `snapshots mount` was killed. */
export const checkMounts = (dead = listDeadMounts()): Check[] =>
  dead.map((point) => ({
    name: "mount",
    state: "limited",
    needed: false,
    use: "snapshots mount",
    detail: `its sshfs was killed; unmount it: fusermount3 -u -z ${shellQuote(plain(point))}`,
  }));

/** Labels of the current VM that `@label` does not select. */
export const checkLabels = ({ isCommand }: Context, { settings }: Vm): Check[] =>
  settings.LABELS.filter(isCommand).map((label) => ({
    name: "labels",
    state: "limited",
    needed: false,
    use: "selecting VMs",
    detail: `'${label}': ${explainCommandLabel(label)}`,
  }));
