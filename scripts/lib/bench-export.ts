/** A VM through a pipe beside the programs that only copy, or only read, the same bytes. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { Guest, runTimed, seconds, type Options } from "./bench-snapshots.ts";
import { environment, median, printTable, vm, within } from "./bench-table.ts";

/** Beside the copy and its checksum, one after the other. */
const MAX = 1.5;

export async function benchExport({ scratch, mebibytes, rounds }: Options): Promise<void> {
  const noise = join(scratch, "noise");
  const disk = join(scratch, "noise.qcow2");
  await Bun.$`head -c ${mebibytes}M /dev/urandom > ${noise}`;
  await Bun.$`qemu-img convert -f raw -O qcow2 ${noise} ${disk}`;
  const guest = new Guest(scratch, "export", [disk]);
  const to = join(scratch, "out");
  const copy = join(scratch, "exported");
  const lines: Record<string, string> = {
    "cat | cat, sync": `cat '${noise}' | cat > '${to}' && sync '${to}'`,
    "tar c | tar x, sync": `mkdir '${to}' && tar -cC '${scratch}' noise | tar -xC '${to}' && sync '${to}/noise'`,
    sha256sum: `sha256sum '${noise}'`,
    "openssl dgst -sha256": `openssl dgst -sha256 '${noise}'`,
    "vm export | vm import": `'${vm}' export | '${vm}' import - '${copy}'`,
  };
  const env = environment(scratch);
  const times = new Map<string, number[]>(Object.keys(lines).map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    console.error(`export and import, round ${round} of ${rounds} …`);
    for (const [name, line] of Object.entries(lines)) {
      const argv = ["bash", "-o", "pipefail", "-c", line];
      times.get(name)!.push((await runTimed(argv, { cwd: guest.path("."), env })).seconds);
      rmSync(to, { recursive: true, force: true });
    }
    await runTimed([vm, "-d", copy, "destroy"], { env });
    rmSync(copy, { recursive: true });
  }
  const of = (name: string): number => median(times.get(name)!);
  const least = of("cat | cat, sync") + of("openssl dgst -sha256");
  const ratio = of("vm export | vm import") / least;
  printTable(`${mebibytes} MiB of random data: median of ${rounds}`, [
    ["command", "time", "beside cat + openssl"],
    ...[...times.keys()].map((name) => [
      name,
      seconds(of(name)),
      name.startsWith("vm") ? within(`${ratio.toFixed(2)}× (<= ${MAX})`, ratio <= MAX) : "",
    ]),
  ]);
  guest.remove();
  for (const path of [noise, disk]) rmSync(path);
}
