import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Builds a boot sector with nasm; the source may include the `.asm` files of this directory. */
export async function assemble(source: string): Promise<Buffer> {
  const directory = mkdtempSync(join(tmpdir(), "guest-"));
  try {
    writeFileSync(join(directory, "boot.asm"), source);
    await Bun.$`nasm -f bin -I${import.meta.dir}/ -o ${directory}/boot.bin ${directory}/boot.asm`.quiet();
    return Buffer.from(await Bun.file(join(directory, "boot.bin")).arrayBuffer());
  } finally {
    rmSync(directory, { recursive: true });
  }
}
