/** The command line of scripts/bench. */
import { mkdirSync, rmSync, statfsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { formatSize } from "../../src/lib/size.ts";
import { benchArriving } from "./bench-arriving.ts";
import { benchDisks } from "./bench-disks.ts";
import { benchImages, benchMany } from "./bench-images.ts";
import { benchJobs } from "./bench-jobs.ts";
import { benchRam } from "./bench-ram.ts";
import { benchList } from "./bench-list.ts";
import { benchSnapshots } from "./bench-snapshots.ts";
import { benchSnapshotsList } from "./bench-snapshots-list.ts";
import { benchExport } from "./bench-export.ts";
import { benchSparse } from "./bench-sparse.ts";
import { benchStart } from "./bench-start.ts";
import { exitOnSignals } from "./signals.ts";

const USAGE = `usage: scripts/bench [options] [start|list|snapshots-list|snapshots|images|sparse|export|arriving|many|jobs|ram|disks]
  disks         the speed of guests' disks, beside other programs' arguments: 25 minutes, on a quiet machine
  --quick       less data, fewer rounds: to see that it works
  --rounds=N    rounds of backup and restore (1; sparse, export: at least 3); the start-up times take 40 in any case, with
                --quick 10
  --iso=FILE    jobs: an ALT Rescue CD (or the tests' stand-in for one) to compare with; with virt-customize where that is
                installed (Debian's package libguestfs-tools)
  --data=MIB    MiB of real files on the big disk (1100, quick 150); the disks are kept in .cache/bench`;

const { values, positionals } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rounds: { type: "string", default: "1" },
    data: { type: "string" },
    iso: { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
  allowPositionals: true,
});
if (values.help) {
  console.log(USAGE);
  process.exit();
}
const [part = "all"] = positionals;
const PARTS = [
  "all",
  "start",
  "list",
  "snapshots-list",
  "snapshots",
  "images",
  "sparse",
  "export",
  "arriving",
  "many",
  "jobs",
  "ram",
  "disks",
];
if (!PARTS.includes(part) || positionals.length > 1) {
  console.error(USAGE);
  process.exit(64);
}

const cache = resolve(import.meta.dir, "../../.cache/bench");
const scratch = join(cache, `run-${process.pid}`);
const mebibytes = Number(values.data ?? (values.quick ? 150 : 1100));
mkdirSync(join(scratch, "home"), { recursive: true, mode: 0o700 });
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
exitOnSignals();

const { bavail, bsize } = statfsSync(cache);
// The disk, its copy, pigz's and our snapshot, and both unpacked; the two small ones are half of it together.
const needed = mebibytes * 2 ** 20 * 7;
if (["all", "snapshots", "images", "sparse", "export", "disks"].includes(part) && bavail * bsize < needed) {
  console.error(`bench: ${cache} needs ${formatSize(needed)} of room; --data=MIB takes less`);
  process.exit(73);
}

const rounds = Number(values.rounds);
if (["all", "start"].includes(part)) benchStart(scratch, values.quick ? 10 : 40);
if (["all", "list"].includes(part)) benchList(scratch, values.quick ? 5 : 20);
if (["all", "snapshots-list"].includes(part)) benchSnapshotsList(scratch, values.quick ? 3 : 11);
if (["all", "snapshots"].includes(part)) await benchSnapshots({ cache, scratch, mebibytes, rounds });
if (["all", "images"].includes(part)) await benchImages({ cache, scratch, mebibytes, rounds });
if (["all", "sparse"].includes(part))
  await benchSparse({ cache, scratch, mebibytes, rounds: part === "sparse" ? Math.max(rounds, 3) : 3 });
if (["all", "export"].includes(part))
  await benchExport({ cache, scratch, mebibytes, rounds: part === "export" ? Math.max(rounds, 3) : 3 });
if (["all", "arriving"].includes(part)) await benchArriving(values.quick ? 2 : 5);
if (["all", "ram"].includes(part)) await benchRam(values.quick ? 2 : 5);
if (["all", "many"].includes(part)) await benchMany(scratch);
// Both parts set up one home, each as it needs it.
if (["all", "jobs"].includes(part))
  benchJobs({
    scratch,
    rounds: part === "jobs" ? rounds : 5,
    inRow: values.quick ? 10 : 50,
    iso: values.iso && resolve(values.iso),
  });
if (["all", "disks"].includes(part)) await benchDisks({ cache, scratch, mebibytes, quick: values.quick });
