import { badOption } from "../../config/complaint.ts";
import { either } from "../../lib/text.ts";
import { validateSnapshotReference } from "../../store/snapshots.ts";
import { TRANSFER_FORMATS, type TransferFormat } from "../choices.ts";
import type { ExportRequest } from "./export.ts";
import type { ImportRequest } from "./import.ts";

function parseFormat(format: unknown, by: TransferFormat): TransferFormat {
  const found = TRANSFER_FORMATS.find((one) => one === format);
  if (format !== undefined && !found) throw badOption("--format", String(format), either(TRANSFER_FORMATS));
  return found ?? by;
}

/** `-` is the standard stream. */
const streamFileOf = (word: string | undefined): string | undefined => (word === "-" ? undefined : word);

/** @throws 64 */
export function parseExport(args: Record<string, unknown>): ExportRequest {
  const snapshot = (args.snapshot as string | undefined) || undefined;
  if (snapshot !== undefined) validateSnapshotReference(snapshot);
  const output = args.output as string | undefined;
  if (output === "") throw badOption("--output", output, "the path of a new file, or -");
  return { snapshot, output: streamFileOf(output), format: parseFormat(args.format, "vm") };
}

/** @throws 64 */
export function parseImport(args: Record<string, unknown>): ImportRequest {
  const file = args.file as string;
  return {
    file: streamFileOf(file),
    directory: (args.directory as string | undefined) || undefined,
    newIdentity: args["new-identity"] === true,
    format: parseFormat(args.format, file.toLowerCase().endsWith(".ova") ? "ova" : "vm"),
  };
}
