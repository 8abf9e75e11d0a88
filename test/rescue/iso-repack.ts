/** Runs `repackIso` with the options of argument 1 (JSON) and prints the result (JSON): Bun reads PATH once, at its start. */
import { VmError } from "../../src/lib/errors.ts";
import { repackIso, type RepackOptions } from "../../src/rescue/iso/repack.ts";

try {
  console.log(JSON.stringify(await repackIso(JSON.parse(process.argv[2]!) as RepackOptions)));
} catch (error) {
  if (!(error instanceof VmError)) throw error;
  console.log(JSON.stringify({ code: error.code, message: error.message, hint: error.hint }));
}
