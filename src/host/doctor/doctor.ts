import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { installHint } from "../../lib/packages.ts";
import { formatTable } from "../../lib/table.ts";
import { readInForce, usableVm, type InForce } from "../config.ts";
import type { Context } from "../../vm/context.ts";
import { oneLine, type Check } from "./check.ts";
import { checkPlaces, checkPrograms } from "./host.ts";
import { checkAging } from "./tmpfiles.ts";
import { checkFirmwares, checkKvm, checkQemus, checkVariables } from "./qemu.ts";
import { checkRescueBuild, checkRescues } from "./rescue.ts";
import { readSystem, type System } from "./system.ts";
import type { Vm } from "../../vm/open.ts";
import { findReaches, formatReach } from "../../vm/reach.ts";

/** What this host has of all that the program may use. */
export interface Diagnosis {
  /** Nothing that is needed is missing. */
  ok: boolean;
  host: System;
  checks: Check[];
}

/** Looks at everything at once; writes nothing. */
export async function diagnose(context: Context, found: InForce): Promise<Diagnosis> {
  const vm = usableVm(context, found);
  const { settings } = vm;
  const [qemus, build, rescues, aging] = await Promise.all([
    checkQemus(settings),
    checkRescueBuild(context.hostArch),
    checkRescues(context, vm),
    checkAging(context.tmpdir),
  ]);
  const checks = [
    ...qemus,
    checkKvm(settings, context.hostArch),
    ...checkFirmwares(settings),
    ...checkVariables(vm),
    ...checkPrograms(context),
    ...build,
    ...rescues,
    ...checkPlaces(context, settings),
    ...checkReaches(context, vm),
    aging,
    ...checkSettings(context, found.error),
  ];
  return { ok: missingOf(checks).length === 0, host: readSystem(), checks };
}

/** What the VM at hand reaches for outside its directory: that is for whoever runs it to judge. */
const checkReaches = (context: Context, vm: Vm): Check[] =>
  findReaches(context, vm).map((reach) => ({
    name: "reaches",
    state: "ok",
    needed: false,
    use: "run, job",
    detail: formatReach(reach),
  }));

/** Settings that are wrong; the checks go by the built-in ones in their place. */
const checkSettings = ({ prog }: Context, error: VmError | undefined): Check[] =>
  error === undefined
    ? []
    : [
        {
          name: "settings",
          state: "limited",
          needed: false,
          use: "everything",
          detail: `${oneLine(error.reason === "settings" ? error.brief : error.message)}; see: ${prog} config`,
        },
      ];

const missingOf = (checks: readonly Check[]): Check[] =>
  checks.filter(({ needed, state }) => needed && state === "missing");

/** How `doctor` is to say it; `report`: as Markdown, with what a maintainer wants to know besides. */
export type DoctorForm = "text" | "json" | "report";

/** @throws 64 for what does not go together */
export function parseDoctorForm(json: boolean, report: boolean): DoctorForm {
  if (json && report)
    throw new VmError("usage", "doctor: --json and --report do not go together", {
      hint: "a report is for people",
    });
  return json ? "json" : report ? "report" : "text";
}

/**
 * Prints what this host has, a line or a JSON object for each.
 * @throws 69 when something that is needed is missing
 */
export async function runDoctor(context: Context, form: DoctorForm): Promise<void> {
  const found = await readInForce(context);
  const diagnosis = await diagnose(context, found);
  if (form === "json") context.print(formatJson(diagnosis));
  else if (form === "text") context.print(formatText(diagnosis));
  else {
    const { makeReport } = await import("./report.ts");
    context.print(makeReport(context, diagnosis.host, found, formatText(diagnosis)));
  }
  if (!diagnosis.ok) throw missingError(diagnosis);
}

/** Names of distributions without a package are there, as null. */
const formatJson = (diagnosis: Diagnosis): string =>
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
  const hints = missing.map(({ packages }) => packages && installHint(packages, host.family, host.release));
  return new VmError("unavailable", `missing and needed: ${missing.map(({ name }) => name).join(", ")}`, {
    hint: [...new Set(hints)].filter(Boolean).join("\n") || undefined,
  });
}
