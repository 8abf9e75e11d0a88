import { expect, spyOn, test } from "bun:test";
import type { Context } from "../../src/vm/context.ts";
import { log } from "../../src/lib/log.ts";
import { notifying } from "../../src/host/notify.ts";
import { VmError } from "../../src/lib/errors.ts";
import { failureOf } from "../fixtures/failure.ts";

const fail = (): Promise<never> => Promise.reject(new VmError("noInput", "no such directory: /nowhere"));

test("a backup in a missing directory fails with its own error, without one about SNAPSHOT_NOTIFY", async () => {
  const context = { cwd: "/", options: { hostdir: "/nowhere" }, home: "/nowhere", prog: "vm" } as Context;
  const warn = spyOn(log, "warn");
  const error = await failureOf(() => notifying(context, undefined, fail));
  expect(error.message).toBe("no such directory: /nowhere");
  expect(warn).not.toHaveBeenCalled();
  warn.mockRestore();
});
