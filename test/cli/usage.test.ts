import { describe, expect, test } from "bun:test";
import { COMMANDS_WITH_STATUSES, exitStatusesOf } from "../../src/cli/exit-statuses.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { COMMANDS } from "../../src/cli/registry.ts";
import { buildCommandUsage, buildUsage, type UsageValues } from "../../src/cli/usage.ts";
import { signatureOf, usageOf } from "../../src/cli/signature.ts";
import { buildDefaults } from "../../src/config/defaults.ts";

const DEFAULTS: UsageValues = {
  ...buildDefaults({ prog: "vm", home: "/home/me", hostArch: "x86_64", libexec: "/l" }),
  hostdir: "/home/me/vm 1",
};

const usage = (changes: Partial<UsageValues> = {}): string =>
  buildUsage("vm", "1.2.3", { ...DEFAULTS, ...changes });
const lineWith = (text: string, part: string): string =>
  text.split("\n").find((line) => line.includes(part)) ?? "";

describe("vm -h", () => {
  test.each([...COMMANDS.values()].map((command) => [signatureOf(command), command.summary] as const))(
    "lists %s: %s",
    (line, summary) => {
      expect(usage()).toContain(`  ${line}`);
      expect(usage()).toContain(summary);
    },
  );

  test.each(GLOBAL_OPTIONS.map(({ long, hidden }) => [long, hidden] as const))(
    "--%s (hidden: %p)",
    (long, hidden) => {
      expect(new RegExp(`--${long}[ =]`).test(usage())).toBe(!hidden);
    },
  );

  test.each(["@MEDIA@", "@MIRROR@", "@HOSTDIR@", "@INDIR@", "@DATADIR@"])("explains %s", (macro) => {
    expect(usage()).toContain(`  ${macro} `);
  });

  test.each([
    ["--cores", {}, "[2]"],
    ["--cores", { CORES: "16" }, "[16]"],
    ["--memory", {}, "[2G]"],
    ["--port", { PORT: "" }, "[none]"],
    ["--disks", { DISKS: ["AHCI=1G", "NVME=2G"] }, "[AHCI=1G NVME=2G]"],
    ["--image", {}, "[none]"],
    ["--share", {}, "[mirror:@MIRROR@ in:@HOSTDIR@ out:rw:@DATADIR@]"],
    ["--hostdir", {}, "[/home/me/vm 1]"],
    ["--timeout", {}, "[none]"],
    ["--rescue", {}, "[rescue-x86_64]"],
    [" UEFI ", {}, "[off]"],
    [" UEFI ", { UEFI: "1" }, "[on]"],
    [" UEFI ", { UEFI: "yes" }, "[on]"],
    [" UEFI ", { UEFI: "no" }, "[off]"],
    [" UEFI ", { UEFI: "0" }, "[off]"],
    [" USENETDEV ", {}, "[on]"],
    [" USENETDEV ", { USENETDEV: "off" }, "[off]"],
    [" INPLACE ", { INPLACE: ["1"] }, "[on]"],
  ])("shows the value for %s with %j: %s", (part, changes, value) => {
    expect(lineWith(usage(changes), part)).toEndWith(` ${value}`);
  });

  test("uses the program's name", () => {
    const text = buildUsage("myvm", "1.2.3", DEFAULTS);
    expect(text).toStartWith("myvm 1.2.3:");
    expect(text).toContain("/etc/myvm.conf, ~/.config/myvm.conf");
    expect(text).toContain("myvm.defaults");
    expect(text).not.toMatch(/\bvm (\[|COMMAND|-c)/);
  });

  test("fits a terminal if values are short", () => {
    for (const line of usage({ hostdir: "/vm", SHARES: [] }).split("\n"))
      expect(line.length).toBeLessThan(120);
  });

  test("works without values", () => {
    expect(buildUsage("vm", "1.2.3", { hostdir: "/vm" })).toContain("--cores");
  });
});

describe.each([...COMMANDS.values()])("vm $name -h", (command) => {
  const text = buildCommandUsage("vm", command);
  test("shows usage, summary, arguments and options", () => {
    expect(text).toStartWith(`usage: vm [options] [@]${usageOf(command)}\n\n${command.summary}\n`);
    for (const { label, help } of command.positionals) {
      expect(text).toContain(`  ${label} `);
      expect(text).toContain(help);
    }
    for (const { long, help } of command.options) {
      expect(text).toContain(`--${long}`);
      expect(text).toContain(help);
    }
    expect(text).toContain("-h, --help");
  });

  test("ends with its exit statuses", () => {
    const shown = text.slice(text.indexOf("\nexit status:\n")).trim().split("\n").slice(1);
    const rows = shown.map((line) => /^ {2}(\S+) {2,}(\S.*)$/.exec(line)!.slice(1) as [string, string]);
    expect(rows).toEqual(exitStatusesOf(command.name) as [string, string][]);
    const numbers = rows.map(([status]) => Number(status)).filter((status) => !Number.isNaN(status));
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    // Common to all commands: SPEC, "Rules for every command".
    expect(rows.map(([status]) => status)).toEqual(expect.arrayContaining(["0", "64", "128+N"]));
  });
});

test("lists exit statuses for every command, and for no other", () => {
  expect([...COMMANDS_WITH_STATUSES].toSorted()).toEqual([...COMMANDS.keys()].toSorted());
});

/** Allowed first words of a help text. */
const VERBS =
  "adopt add assign attach boot build check clear compare compress confine connect copy create decompress destroy disable do enable fetch follow forget forward grow include insert install keep kill leave limit list log make merge move open pass pause preserve press print prune push read remove rename repack replace restart resume run save set show shut start stop store take type use wait".split(
    " ",
  );

/** Rule 4 of the project's style: one line, verb first, no full stop. */
describe("help:", () => {
  const rows = [...COMMANDS.values()].flatMap((command) => [
    [command.name, command.summary],
    ...command.options.map(({ long, help }) => [`${command.name} --${long}`, help]),
  ]) as [string, string][];
  const globals = GLOBAL_OPTIONS.filter(({ hidden }) => !hidden).map(
    ({ long, help }) => [`--${long}`, help] as [string, string],
  );
  test.each([...rows, ...globals])("%s: %s", (_name, help) => {
    const words = help.replace(
      /^(with --[\w-]+|add|add, remove|build|list|remove|off|on|on, stop|resize|rm|set|show|list, show): /,
      "",
    );
    // A list of choices needs no verb.
    if (!/^[\w]+(, \w+)* or \w+(;|$)/.test(words)) expect(VERBS).toContain(words.split(" ")[0]!);
    expect(help).not.toMatch(/\.$|\n/);
  });
});
