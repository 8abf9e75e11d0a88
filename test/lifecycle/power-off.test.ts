import { afterEach, beforeEach, expect, test } from "bun:test";
import { QmpClient } from "../../src/qmp/client.ts";
import { requestPowerOff } from "../../src/lifecycle/power-off.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeQmp } from "../qmp/fake-server.ts";

let temp: Temp;
beforeEach(() => void (temp = new Temp()));
afterEach(() => temp[Symbol.dispose]());

type AgentMode = "none" | "accepts" | "refuses";

/** Requests to the guest, by power button and agent. */
async function ask(running: boolean, mode: AgentMode, again: boolean): Promise<string[]> {
  const asked: string[] = [];
  using _agent = Bun.listen({
    unix: temp.path("agent.sock"),
    socket: {
      data: (socket, bytes) => {
        for (const line of bytes.toString("latin1").replaceAll("\xff", "").split("\n").filter(Boolean)) {
          const { execute, arguments: args } = JSON.parse(line);
          if (execute === "guest-sync-delimited")
            socket.write(Buffer.from(`\xff{"return":${args.id}}\n`, "latin1"));
          else asked.push(execute);
          if (execute !== "guest-sync-delimited" && mode === "refuses")
            socket.write('{"error":{"class":"GenericError","desc":"no"}}\n');
        }
      },
    },
  });
  const chardev = {
    filename: `disconnected:unix:${temp.path("agent.sock")},server=on`,
    "frontend-open": mode !== "none",
  };
  using _server = new FakeQmp(temp.path("qmp.sock"), ({ execute }) => {
    if (execute === "cont" || execute === "system_powerdown") asked.push(execute);
    if (execute === "query-status") return { return: { running, status: running ? "running" : "paused" } };
    return { return: execute === "query-chardev" ? [chardev] : {} };
  });
  const qmp = await QmpClient.connect(temp.path("qmp.sock"));
  await requestPowerOff(qmp, temp.top, again);
  qmp.close();
  return asked;
}

test.each<[string, boolean, AgentMode, boolean, string[]]>([
  ["without an agent: the button", true, "none", false, ["system_powerdown"]],
  ["with an agent: the agent alone", true, "accepts", false, ["guest-shutdown"]],
  ["an agent that fails: the button, too", true, "refuses", false, ["guest-shutdown", "system_powerdown"]],
  [
    "again, with an agent that did nothing: both",
    true,
    "accepts",
    true,
    ["system_powerdown", "guest-shutdown"],
  ],
  ["again, without an agent: the button once", true, "none", true, ["system_powerdown"]],
  ["a paused guest is resumed first", false, "none", false, ["cont", "system_powerdown"]],
])("asks a guest to shut down %s", async (_title, running, mode, again, asked) => {
  expect(await ask(running, mode, again)).toEqual(asked);
});
