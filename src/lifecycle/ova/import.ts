import type { Context } from "../../vm/context.ts";
export async function importOva(_context: Context, _request: unknown): Promise<void> {}
