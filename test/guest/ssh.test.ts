import { describe, expect, test } from "bun:test";
import { buildSshOptions, findKeys, parseCopy } from "../../src/guest/ssh.ts";
import { Temp } from "../fixtures/temp.ts";
import { meaningOf } from "../cli/lines.ts";
import { describeWith } from "../fixtures/needs.ts";

describe("cp", () => {
  test.each([
    ["file :/root/", "file → guest:/root/"],
    [":/etc/hosts .", "guest:/etc/hosts → ."],
    ["a b :", "a → b → guest:"],
    [":/a :/b", "guest:/a → guest:/b"],
    // scp would take these for files on a host named a.
    ["a:b :/c", "./a:b → guest:/c"],
    ["/x/a:b :/c", "/x/a:b → guest:/c"],
    ["-r :/c", "-r → guest:/c"],
    ["a b", "64: cp: no path is in the guest"],
    [":/a", "64: cp: DST is missing"],
  ])("%s: %s", (line, meaning) => {
    const shown = (): string =>
      parseCopy(line.split(" "))
        .map(({ guest, path }) => (guest ? `guest:${path}` : path))
        .join(" → ");
    expect(meaningOf(shown)).toBe(meaning);
  });
});

/** The effective configuration of the system's ssh with the program's options. */
function understood(options: readonly string[]): Map<string, string> {
  const { stdout, stderr } = Bun.spawnSync(["ssh", "-F", "/dev/null", ...options, "-T", "-G", "127.0.0.1"]);
  expect(stderr.toString()).toBe("");
  const text = stdout.toString();
  return new Map(text.split("\n").map((line) => [line.replace(/ .*/, ""), line.replace(/^\S+ /, "")]));
}

describeWith("ssh")("ssh understands", () => {
  test.each([
    "/tmp/a",
    "/tmp/with blank",
    '/tmp/"quoted"',
    String.raw`/tmp/back\slash`,
    "/tmp/Диск №1",
    "/tmp/it's #1",
  ])("the path %s", (path) => {
    const options = buildSshOptions({
      port: 5022,
      user: "root",
      knownHosts: path,
      alias: "WS10",
      keys: [path],
    });
    const shown = understood(options);
    expect(shown.get("port")).toBe("5022");
    expect(shown.get("user")).toBe("root");
    expect(shown.get("userknownhostsfile")).toBe(path);
    expect(shown.get("identityfile")).toBe(path);
    expect(shown.get("identitiesonly")).toBe("yes");
    expect(shown.get("hostkeyalias")).toBe("ws10");
    expect(shown.get("stricthostkeychecking")).toBe("accept-new");
  });

  test("offers all keys of an agent if the VM has none", () => {
    const options = buildSshOptions({ port: 1, user: "me", knownHosts: "/x", alias: "a", keys: [] });
    expect(understood(options).get("identitiesonly")).toBe("no");
  });

  test("a Windows user", () => {
    const user = String.raw`DOMAIN\somebody`;
    const options = buildSshOptions({ port: 1, user, knownHosts: "/x", alias: "a", keys: [] });
    expect(understood(options).get("user")).toBe(user);
  });
});

test("the VM's keys: private ones; the public one if only an agent has the private one", () => {
  using temp = new Temp();
  for (const name of ["both", "both.pub", "agent.pub", "odd"]) temp.write(name, "");
  const SSHKEYS = ["both.pub", temp.path("agent.pub"), "none.pub", "odd"];
  const vm = { hostdir: temp.top, settings: { SSHKEYS } };
  expect(findKeys(vm, true)).toEqual([temp.path("both"), temp.path("agent.pub")]);
  expect(findKeys(vm, false)).toEqual([temp.path("both")]);
});
