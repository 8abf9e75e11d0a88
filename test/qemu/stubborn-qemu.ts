/**
 * A qemu for tests of starting and ending one: `stubborn-qemu.ts BEHAVIOUR`, started in the directory of its socket
 * `qmp.sock`. It answers every command, and exits on `quit` and SIGTERM unless its behaviour says otherwise.
 */
import { readFileSync, rmSync } from "node:fs";
import { FakeQmp } from "../qmp/fake-server.ts";

const behaviour = process.argv[2] as
  | "orderly"
  /** Exits before the greeting. */
  | "refuses"
  /** Is killed before the greeting. */
  | "dies"
  /** Runs, and never listens. */
  | "hangs"
  /** Does not answer `quit`. */
  | "deaf"
  /** Answers `quit`, and keeps running. */
  | "idle"
  /** The same, and ignores SIGTERM. */
  | "stubborn"
  /** Exits with status 0 and without an event on `cont`. */
  | "eventless";

process.stderr.write(`this is a qemu that ${behaviour}\n`);
if (behaviour === "refuses") process.exit(1);
if (behaviour === "dies") process.kill(process.pid, "SIGKILL");
if (behaviour !== "hangs") listen();

function listen(): void {
  const leave = (reason: string): void => {
    server.send({ event: "SHUTDOWN", data: { guest: false, reason } });
    rmSync("qmp.sock");
    setTimeout(() => process.exit(), 10);
  };
  const server: FakeQmp = new FakeQmp("qmp.sock", ({ execute }) => {
    if (execute === "quit" && behaviour === "deaf") return undefined;
    if (execute === "quit" && behaviour !== "idle" && behaviour !== "stubborn") leave("host-qmp-quit");
    if (execute === "cont" && behaviour === "eventless") process.exit(0);
    return { return: {} };
  });
  process.on("SIGTERM", () => {
    if (behaviour !== "stubborn") leave("host-signal");
  });
}

/** Exits with the test that started it. */
const parent = getParent();
setInterval(() => {
  if (getParent() !== parent) process.exit();
}, 1000);

function getParent(): string {
  return /^PPid:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!;
}
