import type { Context } from "../vm/context.ts";
import type { FilesRequest } from "./request.ts";

export async function runFiles(context: Context, request: FilesRequest): Promise<void> {
  switch (request.action) {
    case "ls":
      return (await import("./list.ts")).listFiles(context, request);
    case "get":
      return (await import("./get.ts")).getFiles(context, request);
    case "mount":
      return (await import("./mount.ts")).mountFiles(context, request);
    case "diff-files":
      return (await import("./diff.ts")).diffFiles(context, request);
  }
}
