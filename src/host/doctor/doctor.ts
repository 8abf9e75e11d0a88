import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { installHint } from "../../lib/packages.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { formatTable } from "../../lib/table.ts";
import { findMisspelt, readInForce, usableVm, type SettingsInForce } from "../config.ts";
import type { Context } from "../../vm/context.ts";
import { oneLine, type Check } from "./check.ts";
import { checkAutostart } from "./autostart.ts";
import { checkPlaces, checkPrograms } from "./host.ts";
import { checkAging } from "./tmpfiles.ts";
import { checkLimits } from "./limits.ts";
import { checkNetworks } from "./networks.ts";
import {
  checkFirmwares,
  checkHugePages,
  checkKvm,
  checkNetboot,
  checkQemus,
  checkVariables,
} from "./qemu.ts";
import { checkRescueBuild, checkRescues, checkSavedStates } from "./rescue.ts";
import { checkLabels, checkMounts } from "./remains.ts";
import { checkExited } from "./running.ts";
import { readSystem, type System } from "./system.ts";
import type { Vm } from "../../vm/find.ts";
import { findReaches, formatReach } from "../../vm/reach.ts";

/** The result of all checks. */
export interface Diagnosis {
  /** Nothing required is missing. */
  ok: boolean;
  host: System;
  checks: Check[];
}

/** Runs all checks in parallel; writes nothing. */
export async function diagnose(context: Context, found: SettingsInForce): Promise<Diagnosis> {
  const vm = usableVm(context, found);
  const { settings } = vm;
  const [qemus, programs, build, rescues, aging, networks, exited] = await Promise.all([
    checkQemus(settings, placeOfDisks(context, vm)),
    checkPrograms(context, settings),
    checkRescueBuild(context.hostArch),
    checkRescues(context, vm),
    checkAging(context.tmpdir),
    checkNetworks(settings),
    checkExited(context, vm.hostdir),
  ]);
  // An interrupted check would report what it could not find as missing.
  throwIfInterrupted();
  const kvm = checkKvm(settings, context.hostArch);
  const checks = [
    ...qemus,
    kvm,
    ...(kvm.state === "ok" ? [checkHugePages(settings)] : []),
    ...checkFirmwares(settings),
    checkNetboot(),
    checkLimits(),
    ...networks,
    ...exited,
    ...checkVariables(vm),
    ...programs,
    ...build,
    ...rescues,
    ...checkSavedStates(context.cacheDirectory),
    ...checkPlaces(context, settings),
    checkAutostart(),
    ...checkMounts(),
    ...checkLabels(context, vm),
    ...checkReaches(context, vm),
    aging,
    ...checkSettings(found),
  ];
  return { ok: missingOf(checks).length === 0, host: readSystem(), checks };
}

/** Where the current VM's disks are, or a new one's will be. */
const placeOfDisks = ({ tmpdir }: Context, { work, settings, hostdir }: Vm): string =>
  work.state === "present" ? work.dir : settings.INPLACE ? hostdir : tmpdir;

/** Files and commands outside its directory that the current VM refers to, for information. */
const checkReaches = (context: Context, vm: Vm): Check[] =>
  findReaches(context, vm).map((reach) => ({
    name: "reaches",
    state: "ok",
    needed: false,
    use: "run, job",
    detail: formatReach(reach),
  }));

/** Invalid settings, for which the checks use built-in values, and misspelt ones. */
function checkSettings(found: SettingsInForce): Check[] {
  const { error } = found;
  const wrong =
    error &&
    `${oneLine(error.reason === "settings" ? error.brief : error.message)}; see: ${commandLine("config")}`;
  return [...(wrong === undefined ? [] : [wrong]), ...findMisspelt(found)].map((detail) => ({
    name: "settings",
    state: "limited",
    needed: false,
    use: "everything",
    detail,
  }));
}

const missingOf = (checks: readonly Check[]): Check[] =>
  checks.filter(({ needed, state }) => needed && state === "missing");

/** Output format; `report`: Markdown, with further facts for maintainers. */
export type DoctorForm = "text" | "json" | "report";

/** @throws 64 for conflicting options */
export function parseDoctorForm(json: boolean, report: boolean): DoctorForm {
  if (json && report)
    throw new VmError("usage", "doctor: --json and --report cannot be combined", {
      hint: "use one of them",
    });
  return json ? "json" : report ? "report" : "text";
}

/**
 * Prints the checks, a line or a JSON object for each.
 * @throws 69 if something required is missing
 */
export async function runDoctor(context: Context, form: DoctorForm): Promise<void> {
  const found = await readInForce(context);
  const diagnosis = await diagnose(context, found);
  if (form === "json") context.print(formatDiagnosisJson(diagnosis));
  else if (form === "text") context.print(formatText(diagnosis));
  else {
    const { makeReport } = await import("./report.ts");
    context.print(makeReport(context, diagnosis.host, found, formatText(diagnosis)));
  }
  if (!diagnosis.ok) throw missingError(diagnosis);
}

/** Distributions without a package are included, as null. */
const formatDiagnosisJson = (diagnosis: Diagnosis): string =>
  toJson(diagnosis, (_key, value: unknown) => (value === undefined ? null : value));

/** Pure: a table. */
export function formatText({ host, checks }: Diagnosis): string {
  const rows = checks.map(({ name, state, needed, use, detail, packages }) => {
    const hint = packages && installHint(packages, host.family, host.release);
    return [name, state, needed ? "needed" : "optional", use, [detail, hint].filter(Boolean).join("; ")];
  });
  return formatTable([["WHAT", "STATE", "NEED", "FOR", "DETAIL"], ...rows]);
}

function missingError({ host, checks }: Diagnosis): VmError {
  const missing = missingOf(checks);
  const hints = missing.map(({ name, detail, packages }) =>
    packages ? installHint(packages, host.family, host.release) : detail && `${name}: ${detail}`,
  );
  return new VmError("unavailable", `cannot run VMs: missing ${missing.map(({ name }) => name).join(", ")}`, {
    hint: [...new Set(hints)].filter(Boolean).join("\n") || undefined,
  });
}
