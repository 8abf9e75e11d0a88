/**
 * Effect of a stop signal on waiting for a qemu that hangs: `interrupted.ts DIRECTORY`. Prints how each ended.
 * It waits 5 s for them, like the program.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { startQemu } from "../../src/qemu/session.ts";
import { installSignalHandlers } from "../../src/process/signals.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { FakeQmp } from "../qmp/fake-server.ts";

const [top = ""] = process.argv.slice(2);
installSignalHandlers();

const qemu = (name: string, behaviour: string) => {
  const directory = join(top, name);
  mkdirSync(directory);
  return startQemu({
    jail: undefined,
    argv: [process.execPath, join(import.meta.dir, "stubborn-qemu.ts"), behaviour],
    directory,
    monitor: join(directory, "qmp.sock"),
    logPath: join(directory, "log"),
  });
};
const endOf = (waiting: Promise<unknown>): Promise<unknown> =>
  waiting.then(
    () => "done",
    (error: Error & { exitCode?: number }) => error.exitCode ?? error,
  );

const silent = new FakeQmp(join(top, "silent.sock"), ({ execute }) =>
  execute === "qmp_capabilities" ? { return: {} } : undefined,
);
const [talking, running] = await Promise.all([
  QmpClient.connect(join(top, "silent.sock")),
  qemu("running", "stubborn"),
]);
const waiting = {
  starting: endOf(qemu("starting", "hangs")),
  command: endOf(talking.execute("stop")),
  ending: endOf(
    running.end([
      { by: "quit", limitMs: 600_000 },
      { by: "SIGKILL", limitMs: 600_000 },
    ]),
  ),
};
process.kill(process.pid, "SIGTERM");
const late = endOf(QmpClient.connect(join(top, "silent.sock"), 600_000).then((qmp) => qmp.execute("cont")));
for (const [name, end] of Object.entries({ ...waiting, late })) console.log(name, await end);
silent.die();
process.exit();
