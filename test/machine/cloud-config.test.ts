import { describe, expect, test } from "bun:test";
import {
  buildMetaData,
  buildUserData,
  findUserDataProblem,
  hostNameOf,
} from "../../src/machine/cloud-config.ts";

test.each([
  ["web", "web"],
  ["WS10", "ws10"],
  ["Mail server №1", "mail-server-no1"],
  ["a_b", "a-b"],
  ["-a-", "a"],
  ["--a--b--", "a-b"],
  ["web.example.org", "web.example.org"],
  ["..a..b..", "a.b"],
  ["-.a", "a"],
  ["Ёлка", "vm"],
  ["Élan", "elan"],
  ["", "vm"],
  [" ", "vm"],
  ["$(reboot)", "reboot"],
  ["a\nb", "a-b"],
  ["x".repeat(100), "x".repeat(63)],
  [`${"x".repeat(62)}-y`, "x".repeat(62)],
])("the host name of %j is %s", (guestName, expected) => {
  expect(hostNameOf(guestName)).toBe(expected);
});

test("limits names to the length that DNS allows", () => {
  const name = hostNameOf(Array.from({ length: 9 }, () => "x".repeat(60)).join("."));
  expect(name.length).toBeLessThanOrEqual(253);
  expect(name).toMatch(/^(x+\.)+x+$/);
});

const KEYS = ["ssh-ed25519 AAAA me@here", `ssh-rsa BBBB "quoted" \\ # : {x} \u0085\u007f 😀 é\tz`];

const read = (text: string): unknown => {
  expect(text).toStartWith("#cloud-config\n");
  expect(text).toEndWith("\n");
  // Characters that are special in YAML are escaped.
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\ufeff]/);
  return JSON.parse(text.slice("#cloud-config\n".length));
};

describe("user-data", () => {
  test("for the image's default user", () => {
    expect(read(buildUserData(undefined, KEYS))).toEqual({ ssh_authorized_keys: KEYS });
  });

  test("for a user of this name", () => {
    expect(read(buildUserData("me", KEYS))).toEqual({
      users: [
        {
          name: "me",
          sudo: "ALL=(ALL) NOPASSWD:ALL",
          shell: "/bin/bash",
          lock_passwd: true,
          ssh_authorized_keys: KEYS,
        },
      ],
    });
  });

  test("for root", () => {
    expect(read(buildUserData("root", KEYS))).toEqual({
      disable_root: false,
      users: [{ name: "root", ssh_authorized_keys: KEYS }],
    });
  });

  test("Bun's YAML reads the intended values", () => {
    expect(Bun.YAML.parse(buildUserData(undefined, KEYS))).toEqual({ ssh_authorized_keys: KEYS });
    expect(Bun.YAML.parse(buildMetaData("vm-1", "web"))).toEqual({
      "instance-id": "vm-1",
      "local-hostname": "web",
    });
  });
});

test.each<[string, Uint8Array | string, RegExp | undefined]>([
  ["cloud-config", "#cloud-config\nusers: []\n", undefined],
  ["a script", "#!/bin/sh\n", undefined],
  ["MIME", "Content-Type: multipart/mixed; boundary=x\n", undefined],
  ["a template", "## template: jinja\n#cloud-config\n", undefined],
  ["gzip", new Uint8Array([0x1f, 0x8b, 8, 0]), undefined],
  ["nothing", "", /empty/],
  ["blanks", " \n\n", /empty/],
  ["a byte order mark", "\uFEFF#cloud-config\n", /BOM/],
  ["a blank first line", "\n#cloud-config\n", /first line is blank/],
  ["YAML without its first line", "users: []\n", /first line is not #cloud-config/],
  ["binary", new Uint8Array([0xff, 0xfe, 0]), /first line is not/],
])("user-data: %s", (_title, content, expected) => {
  const found = findUserDataProblem(
    typeof content === "string" ? new TextEncoder().encode(content) : content,
  );
  if (expected) expect(found).toMatch(expected);
  else expect(found).toBeUndefined();
});
