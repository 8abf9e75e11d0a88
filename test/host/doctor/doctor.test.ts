import { describe, expect, test } from "bun:test";
import { formatText, type Diagnosis } from "../../../src/host/doctor/doctor.ts";
import { checkVariables } from "../../../src/host/doctor/qemu.ts";
import { redact } from "../../../src/host/doctor/redact.ts";
import { buildReport, lastLines } from "../../../src/host/doctor/report.ts";
import { oneLine, type Check } from "../../../src/host/doctor/check.ts";
import { parseOsRelease } from "../../../src/host/doctor/system.ts";
import { PACKAGES } from "../../../src/lib/packages.ts";
import type { Vm } from "../../../src/vm/find.ts";
import { Temp } from "../../fixtures/temp.ts";

describe("os-release", () => {
  test.each<[text: string, name: string, family: string | undefined, ...release: number[]]>([
    ['PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n', "Debian GNU/Linux 12 (bookworm)", "debian"],
    ['NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n', "Ubuntu 24.04", "ubuntu"],
    [
      'ID=altlinux\nPRETTY_NAME="ALT Workstation 10.2 (Autolycus)"\n',
      "ALT Workstation 10.2 (Autolycus)",
      "alt",
    ],
    ['ID="almalinux"\nID_LIKE="rhel centos fedora"\n', "almalinux", "fedora"],
    ['ID=debian\nVERSION_ID="12"\n', "debian", "debian", 12],
    ["ID=ubuntu\nVERSION_ID=24.04\n", "ubuntu", "ubuntu", 24.04],
    ["ID=arch\nVERSION_ID=rolling\n", "arch", "arch"],
    ["ID=alpine\n", "alpine", undefined],
    ["", "", undefined],
    ["$(rm -rf /)\n", "", undefined],
  ])("%j is %s of the family %s", (text, name, family, ...more) => {
    const known = more.length === 0 ? {} : { release: more[0] };
    expect(parseOsRelease(text)).toEqual({ name, family, ...known } as ReturnType<typeof parseOsRelease>);
  });
});

const PIGZ: Check = {
  name: "pigz",
  state: "missing",
  needed: true,
  use: "snapshots",
  detail: "not found",
  packages: PACKAGES.pigz,
};

const lineOf = (check: Check, family?: Diagnosis["host"]["family"]): string =>
  formatText({ ok: true, host: { name: "", family }, checks: [check] }).split("\n")[1]!;

describe("a line of the doctor", () => {
  test.each<[Partial<Check>, Diagnosis["host"]["family"], string]>([
    [{}, "debian", "pigz  missing  needed  snapshots  not found; install pigz"],
    [
      { packages: PACKAGES["qemu-img"] },
      "debian",
      "pigz  missing  needed  snapshots  not found; install qemu-utils",
    ],
    [{ packages: PACKAGES.alt2deploy }, "debian", "pigz  missing  needed  snapshots  not found"],
    [{ state: "ok", needed: false, detail: "" }, "alt", "pigz  ok     optional  snapshots  install pigz"],
  ])("%j on %p: %s", (change, family, line) => {
    expect(lineOf({ ...PIGZ, ...change }, family)).toMatch(new RegExp(`^${line.replaceAll(/ +/g, " +")}$`));
  });
});

test.each([
  ["a:\n  b\n  c", "a: b: c"],
  ["one\u001B[1m line\n", "one [1m line"],
])("%j in one line is %s", (text, line) => {
  expect(oneLine(text)).toBe(line);
});

describe("taken out of a report:", () => {
  const hidden = {
    homes: ["/home/ann", "/data/home/ann", "/"],
    hosts: ["vm-1"],
    users: ["ann", "root", ""],
    secrets: ["s3cret", ""],
  };
  test.each([
    ["/home/ann/vm: 3 GiB", "~/vm: 3 GiB"],
    ["/data/home/ann", "~"],
    ["/home/anna/x, annals", "/home/USER/x, annals"],
    ["/srv/home/anna and /homes/anna", "/srv/home/anna and /homes/anna"],
    ["KEY='/home/bob':/home/carol,x", "KEY='/home/USER':/home/USER,x"],
    ["ann@host, (ann)", "USER@host, (USER)"],
    ["root@vm-1:/ and root@vm-10, vm-1", "root@HOST:/ and root@vm-10, vm-1"],
    ["root / /root", "root / /root"],
    ["password=s3cret.", "password=***."],
  ])("%s → %s", (text, clean) => {
    expect(redact(text, hidden)).toBe(clean);
  });
});

describe("a report", () => {
  test("has a block for each section that is not empty", () => {
    expect(
      buildReport([
        { title: "a", text: "x\n" },
        { title: "b", text: " \n" },
      ]),
    ).toBe("### a\n\n```text\nx\n```\n");
  });

  test("cannot be left by what is in it", () => {
    expect(buildReport([{ title: "a", text: "````\n# x" }])).toBe("### a\n\n`````text\n````\n# x\n`````\n");
  });

  test("has the last lines of a console, without its control characters", () => {
    expect(lastLines("\u001B[1mboot\u001B[0m\r\nlogin: \u0007\n\n")).toBe("boot\nlogin:");
    expect(lastLines("x\n".repeat(100)).split("\n")).toHaveLength(30);
  });
});

test("UEFI variables for which no firmware is installed are something missing", () => {
  using temp = new Temp();
  const settings = { UEFI: true, QEMUARCH: "x86_64", OVMF_CODE: "", OVMF_VARS: "" };
  const vm = { settings, work: { state: "present", dir: temp.top } } as unknown as Vm;
  expect(checkVariables(vm)).toEqual([]);
  temp.write("efivars.bin", Buffer.alloc(65536));
  expect(checkVariables(vm)).toMatchObject([{ name: "uefi-variables", state: "missing", needed: true }]);
});
