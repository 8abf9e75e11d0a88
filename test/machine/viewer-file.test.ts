import { describe, expect, test } from "bun:test";
import type { SharedDisplay } from "../../src/machine/types.ts";
import { buildViewerFile } from "../../src/machine/viewer-file.ts";

const TCP: SharedDisplay = {
  kind: "spice",
  at: { host: "localhost", port: 5900 },
  passwordFile: undefined,
  tls: undefined,
};
const TLS = { directory: "/d", ca: "-----A\nB\n", subject: String.raw`O=a\,b,CN=c` };

describe("the viewer's connection file", () => {
  test.each<[string, Partial<SharedDisplay>, string[]]>([
    ["SPICE", {}, ["type=spice", "host=localhost", "port=5900"]],
    ["VNC", { kind: "vnc" }, ["type=vnc", "host=localhost", "port=5900"]],
    ["all addresses", { at: { host: "::", port: 5901 } }, ["type=spice", "host=localhost", "port=5901"]],
    ["a socket", { at: { socket: "/w/spice.sock" } }, ["type=spice", "unix-path=/w/spice.sock"]],
    [
      "VNC's socket, for a tunnel",
      { kind: "vnc", at: { socket: "/w/vnc.sock" } },
      ["type=vnc", "host=localhost", "port=5900"],
    ],
    [
      "TLS",
      { tls: TLS },
      [
        "type=spice",
        "host=localhost",
        "tls-port=5900",
        String.raw`ca=-----A\nB\n`,
        String.raw`host-subject=O=a\\,b,CN=c`,
      ],
    ],
  ])("for %s", (_title, changes, lines) => {
    const text = buildViewerFile({ ...TCP, ...changes }, undefined, "G");
    expect(text).toBe(["[virt-viewer]", ...lines, "title=G", ""].join("\n"));
  });

  test.each([
    ["secret", "secret"],
    [" a", String.raw`\sa`],
    [String.raw`a\sb`, String.raw`a\\sb`],
  ])("with the password %j", (password, written) => {
    expect(buildViewerFile(TCP, password, "G")).toContain(`\npassword=${written}\n`);
  });

  test("a title is one line", () => {
    expect(buildViewerFile(TCP, undefined, "a\nport=1")).toContain("\ntitle=a port=1\n");
  });
});
