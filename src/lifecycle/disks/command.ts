import type { Context } from "../../vm/context.ts";
import type { DiskCommand } from "./request.ts";
import type { Grown, RequireJob } from "./resize.ts";

/**
 * @param requireJob refuses if no job can grow the filesystem of a VM that is off
 * @returns the disk whose partition and filesystem must grow
 */
export async function runDiskCommand(
  context: Context,
  asked: DiskCommand,
  requireJob: RequireJob,
): Promise<Grown | undefined> {
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
    case "set":
      await (await import("./limit.ts")).limitDisk(context, asked.name, asked.limits);
      return undefined;
    case "resize":
      return (await import("./resize.ts")).resizeDisk(context, asked, requireJob);
  }
}
