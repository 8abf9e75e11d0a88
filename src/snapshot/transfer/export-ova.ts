import type { Context } from "../../vm/context.ts";
import type { ExportRequest } from "./export.ts";
export async function exportOva(_context: Context, _request: ExportRequest): Promise<void> {}
