import { totalmem } from "node:os";
import { VmError } from "../lib/errors.ts";
import { commandLine } from "../lib/command-line.ts";
import { log, warnOnce } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { ARCH } from "../machine/arch.ts";
import { defaultCpu, resolveAccel } from "../qemu/accel.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";
import { processorsOf } from "./machine.ts";

/**
 * Refuses processors with which qemu would not start. A lack of KVM is a warning: it may be there at the next run.
 * @throws 64 with qemu's reason
 */
export async function refuseProcessors(
  command: string,
  { hostArch }: Context,
  vm: Pick<Vm, "settings" | "raw">,
): Promise<void> {
  const { ACCEL, QEMUARCH: arch, UEFI, LAYOUT: layout } = vm.settings;
  const { accel, problem } = resolveAccel(ACCEL === "kvm" ? "auto" : ACCEL, arch, hostArch);
  if (problem !== undefined && ACCEL === "kvm")
    log.warn(`the VM does not start on this host: no KVM: ${problem}`);
  const wanted = processorsOf(vm, accel);
  const needsKvm = problem !== undefined && /^host(,|$)/.test(wanted.cpu);
  if (needsKvm) log.warn(`the VM does not start on this host: CPU=host needs KVM: ${problem}`);
  const processors = needsKvm ? { ...wanted, cpu: defaultCpu(arch, accel) } : wanted;
  const { tryProcessors } = await import("../qemu/try-processors.ts");
  const firmware = UEFI ? {} : undefined;
  // 255 processors take a minute to make under emulation. Without options of the user, limits.ts has checked their number.
  const number = processors.cpuOptions ? {} : { sockets: 1, cores: 1 };
  const refusal = await tryProcessors({
    ...processors,
    ...number,
    arch,
    layout,
    firmware,
    kernel: undefined,
    resumed: false,
  });
  if (refusal !== undefined)
    throw new VmError("usage", `cannot ${command}: the VM would not start: ${refusal}`, {
      hint: vm.settings.CPU === "" ? undefined : `list CPU models: ${ARCH[arch].binary} -cpu help`,
    });
}

/** What qemu needs beside the guest's RAM, without large displays. */
const OVERHEAD_MIB = 128;

/** Refuses a MEMORY_MAX with which the kernel would kill qemu as soon as the guest uses its RAM. @throws 64, 78 if it is from files */
export function refuseMemoryMax(
  command: string,
  { settings: { MEMORY, MEMORY_MAX }, origins }: Pick<Vm, "settings"> & Partial<Pick<Vm, "origins">>,
): void {
  if (MEMORY_MAX === undefined || MEMORY_MAX >= MEMORY + OVERHEAD_MIB) return;
  const [most, ram] = [MEMORY_MAX, MEMORY].map((mib) => formatSize(mib * 2 ** 20));
  if (MEMORY_MAX < MEMORY)
    throw new VmError(
      origins && [origins.MEMORY, origins.MEMORY_MAX].every(({ kind }) => kind !== "option")
        ? "config"
        : "usage",
      `cannot ${command}: MEMORY_MAX, ${most}, is less than the guest's RAM, ${ram}`,
      {
        hint: `qemu needs the RAM, and about ${OVERHEAD_MIB} MiB more: ${commandLine("set", `MEMORY_MAX=${MEMORY + 2 * OVERHEAD_MIB}M`)}`,
      },
    );
  warnOnce(
    `MEMORY_MAX, ${most}, leaves little beside the guest's RAM, ${ram}: the kernel may kill qemu, which needs about ${OVERHEAD_MIB} MiB`,
  );
}

/** Hardly any system boots with less. */
const LITTLE_MEMORY_MIB = 16;

/**
 * Warns of more memory than the host has: qemu may not start, or the host may run out of it; and of so little that MiB may
 * not have been meant.
 */
export function warnOfMemory({ settings: { MEMORY } }: Pick<Vm, "settings">): void {
  if (MEMORY < LITTLE_MEMORY_MIB)
    warnOnce(
      `the VM's memory is only ${formatSize(MEMORY * 2 ** 20)}, with which hardly any system boots; for GiB: MEMORY=${MEMORY}G`,
    );
  const own = totalmem();
  if (MEMORY * 2 ** 20 > own)
    warnOnce(
      `the VM's memory, ${formatSize(MEMORY * 2 ** 20)}, exceeds that of this host, ${formatSize(own)}`,
    );
}
