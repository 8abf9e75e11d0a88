import { programLine } from "../../lib/command-line.ts";
import { kernelPackages, PACKAGES } from "../../lib/packages.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { shellQuote } from "../../lib/shell.ts";
import { formatSize } from "../../lib/size.ts";
import { counted } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { parseArch } from "../../machine/arch.ts";
import { ARCHES } from "../../machine/types.ts";
import { findHostProgram } from "../../rescue/build/host.ts";
import { findKernel } from "../../rescue/build/kernel.ts";
import { missingUnpacker } from "../../rescue/build/modules.ts";
import { listFailed, sumStates } from "../../rescue/warm-state.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { findRescues } from "../../job/rescue-list.ts";
import { checkProgram, oneLine, type Check } from "./check.ts";

const BUILD = "rescue build";

/** Programs for building rescue systems. */
export async function checkRescueBuild(hostArch: string): Promise<Check[]> {
  return [
    checkProgram({ name: "busybox", use: BUILD, thing: "busybox", find: findHostProgram }),
    checkProgram({
      name: "kmod",
      use: BUILD,
      thing: "kmod",
      find: () => findHostProgram("depmod") && findHostProgram("modprobe"),
    }),
    await checkKernel(hostArch),
    checkProgram({ name: "xorriso", use: `${BUILD} --iso, create --cloud-init`, thing: "xorriso" }),
    checkProgram({ name: "alt2deploy", use: `${BUILD} --iso, instead of xorriso`, thing: "alt2deploy" }),
  ];
}

/** A directory where no file can be created, so that missing module lists are not generated. */
const NO_SCRATCH = "/dev/null";

async function checkKernel(hostArch: string): Promise<Check> {
  const arch = parseArch(hostArch) ?? ARCHES[0];
  const common = { name: "kernel", needed: false, use: BUILD };
  try {
    const { file, graph } = await findKernel({ arch, scratch: NO_SCRATCH });
    const unpacker = missingUnpacker(graph);
    if (unpacker !== undefined)
      return {
        ...common,
        state: "limited",
        detail: `${file}: cannot decompress its modules: no ${unpacker}`,
        packages: PACKAGES[unpacker],
      };
    return { ...common, state: "ok", detail: file };
  } catch (error) {
    const found = { ...common, state: "missing" as const, detail: oneLine(reasonOf(error)) };
    // Other kernels would be unreadable as well.
    if (error instanceof VmError && error.reason === "denied")
      return { ...found, detail: `${found.detail}; copy one with sudo` };
    return { ...found, packages: kernelPackages(hostArch) };
  }
}

/** The saved states of the rescue, and how to remove them. */
export function checkSavedStates(cache: string | undefined): Check[] {
  const common = { name: "rescue-states", needed: false, use: "jobs that start fast" };
  try {
    if (cache === undefined) return [];
    const failed = listFailed(cache).map(({ path, until }): Check => {
      const detail = `a saved state could not be used: jobs boot the rescue until ${formatTimestamp(until)}; to try again before: rm ${shellQuote(path)}`;
      return { ...common, state: "limited", detail };
    });
    const found = sumStates(cache);
    if (!found) return failed;
    const { directory, count, bytes } = found;
    const detail = `${directory}: ${counted(count, "saved state")}, ${formatSize(bytes)}; to remove: rm -r ${shellQuote(directory)}`;
    return [{ ...common, state: "ok", detail }, ...failed];
  } catch (error) {
    return [{ ...common, state: "limited", detail: oneLine(reasonOf(error)) }];
  }
}

/** The rescue profiles. */
export async function checkRescues(context: Context, vm: Vm): Promise<Check[]> {
  const { PROFILES } = vm.settings;
  const common = { needed: false, use: "jobs" };
  try {
    const rescues = await findRescues(context, vm);
    if (rescues.length === 0)
      return [
        {
          ...common,
          name: "rescue",
          state: "missing",
          detail: `none in ${PROFILES}; build one: ${programLine("rescue", "build")}`,
        },
      ];
    return rescues.map(({ name, kind, problem }) => ({
      ...common,
      name: `rescue:${name}`,
      state: problem === undefined ? "ok" : "limited",
      detail: oneLine(problem ?? kind),
    }));
  } catch (error) {
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
    return [
      { ...common, name: "rescue", state: "limited", detail: `${PROFILES}: ${oneLine(reasonOf(error))}` },
    ];
  }
}
