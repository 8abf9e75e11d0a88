import { expect, spyOn, test } from "bun:test";
import { closeSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { sendTap } from "../../src/network/tap.ts";
import * as descriptors from "../../src/process/descriptors.ts";
import * as libc from "../../src/process/libc.ts";
import { receiveFrom } from "../../src/process/receive.ts";
import { failureOf } from "../fixtures/failure.ts";
import { testWith } from "../fixtures/needs.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeLan } from "./fake-lan.ts";

/** `sendTap` in a network namespace of its own, after one command there and before another. */
function sendFrom(before: string, after = ":") {
  const module = JSON.stringify(join(import.meta.dir, "../../src/network/tap.ts"));
  const script = `const { sendTap } = await import(${module}); await sendTap("br0");`;
  const shell = `PATH=$PATH:/usr/sbin:/sbin; ${before}; "$0" -e "$1" && ${after}`;
  const namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"];
  return receiveFrom([...namespace, shell, process.execPath, script]);
}

testWith("unshare", "ip")("a tap device on the bridge is sent to the starter", async () => {
  using temp = new Temp();
  const links = temp.path("links");
  const received = await sendFrom(
    "ip link add name br0 type bridge",
    `ip -oneline link show master br0 >'${links}'`,
  );
  const fd = received.fd!;
  expect(readlinkSync(`/proc/self/fd/${fd}`)).toBe("/dev/net/tun");
  expect(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")).toMatch(/^iff:\s+vm0$/m);
  closeSync(fd);
  expect(readFileSync(links, "utf8")).toMatch(/^\d+: vm0: .*master br0/);
});

testWith("unshare", "ip")("without the bridge none is sent, and the reason is told", async () => {
  const received = await sendFrom(":");
  expect(received).toMatchObject({ fd: undefined, result: { status: 1 } });
  expect(received.fd === undefined && received.result.stderr).toContain("cannot connect vm0 to br0");
});

test("the device is set up by ip(8), then sent", async () => {
  using fake = new FakeLan();
  fake.program("ip", `echo "$*" >'${fake.path("said")}'`);
  using _set = spyOn(libc, "setInterface").mockReturnValue("vm7");
  using sent = spyOn(descriptors, "sendDescriptor").mockReturnValue(undefined);
  await sendTap("br5");
  expect(readFileSync(fake.path("said"), "utf8")).toBe("link set dev vm7 master br5 up\n");
  expect(sent).toHaveBeenCalledTimes(1);
  fake.program("ip", "echo 'argument \"br5\" is wrong: Device does not exist' >&2; exit 1");
  const error = await failureOf(() => sendTap("br5"));
  expect(error.message).toStartWith("cannot connect vm7 to br5: ip exited with status 1:\n  argument");
  expect(sent).toHaveBeenCalledTimes(1);
});
