import { expect, test } from "bun:test";
import { limitWait, signalError, throwIfInterrupted } from "../../src/process/signals.ts";

test.each([
  ["SIGHUP", 129],
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("%s ends the program with status %d", (signal, status) =>
  expect(signalError(signal).exitCode).toBe(status),
);

test("without a signal nothing is interrupted", () => expect(throwIfInterrupted).not.toThrow());

test("a wait that ends before its limit is not late", async () => {
  const late: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const early = limitWait(1, () => late.push("early"));
  early[Symbol.dispose]();
  using _longer = limitWait(20, () => {
    late.push("longer");
    resolve();
  });
  await promise;
  expect(late).toEqual(["longer"]);
});
