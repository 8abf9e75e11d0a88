import type { Context } from "../../vm/context.ts";
import type { DiskCommand } from "./request.ts";

export async function runDiskCommand(context: Context, asked: DiskCommand): Promise<void> {
  switch (asked.action) {
    case "list":
      return (await import("./list.ts")).listDisks(context, asked.json);
    case "add":
      return (await import("./add.ts")).addDisk(context, asked.disk);
    case "remove":
      return (await import("./remove.ts")).removeDisk(context, asked.name, asked.delete);
    case "resize":
      return (await import("./resize.ts")).resizeDisk(context, asked.name, asked.size);
  }
}
