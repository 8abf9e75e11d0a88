import type { Context } from "../../vm/context.ts";
import type { DiskCommand } from "./request.ts";

/** @returns serial number of the disk whose file system a job must grow */
export async function runDiskCommand(context: Context, asked: DiskCommand): Promise<string | undefined> {
  switch (asked.action) {
    case "list":
      await (await import("./list.ts")).listDisks(context, asked.json);
      return undefined;
    case "add":
      await (await import("./add.ts")).addDisk(context, asked.disk);
      return undefined;
    case "remove":
      await (await import("./remove.ts")).removeDisk(context, asked.name, asked.delete);
      return undefined;
    case "resize":
      return (await import("./resize.ts")).resizeDisk(context, asked);
  }
}
