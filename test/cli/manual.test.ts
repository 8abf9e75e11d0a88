import { describe, expect, test } from "bun:test";
import { date, version } from "../../package.json";
import { exitStatusesOf } from "../../src/cli/exit-statuses.ts";
import { usageOf } from "../../src/cli/signature.ts";
import { buildManual } from "../../src/cli/manual/page.ts";
import { COMMANDS_PROSE } from "../../src/cli/manual/prose.ts";
import { bold, fill, item, literal, prose } from "../../src/cli/manual/roff.ts";
import { TOPICS } from "../../src/cli/manual/topics.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { COMMANDS } from "../../src/cli/registry.ts";
import { SCHEMA, SETTING_NAMES } from "../../src/config/schema.ts";
import { ARCH } from "../../src/machine/arch.ts";
import { ARCHES } from "../../src/machine/types.ts";
import { EXIT } from "../../src/lib/errors.ts";

const source = buildManual("vm");
/** The page as plain text on one line. */
const text = source
  .replaceAll(/\\f[BIR]/g, "")
  .replaceAll(/\\\[u([0-9A-F]+)\]/g, (_, code: string) => String.fromCodePoint(Number.parseInt(code, 16)))
  .replaceAll("\\(aq", "'")
  .replaceAll("\\(ti", "~")
  .replaceAll("\\-", "-")
  .replaceAll("\\&", "")
  .replaceAll("\\e", "\\")
  .replaceAll(/\s+/g, " ");
/** Without bold markup. */
const plain = (help: string): string => help.replaceAll("`", "").replaceAll("…", "...");
/** Capitalizes a sentence. */
const capital = (help: string): string => plain(help).replace(/^[a-z]/, (letter) => letter.toUpperCase());

describe("the manual has", () => {
  test.each([...COMMANDS.values()])("the command $name", (command) => {
    expect(text).toContain(`.SS "${plain(usageOf(command))}" ${capital(command.summary)}`);
    for (const { label, help } of command.positionals)
      expect(text).toContain(`.TP ${plain(label)} ${plain(help)}`);
    for (const { long } of command.options) expect(text).toMatch(new RegExp(`--${long}(=\\S+)? .*`));
    for (const { help } of command.options) expect(text).toContain(` ${plain(help)}`);
    const statuses = exitStatusesOf(command.name).map((words) => words.join(" "));
    expect(text).toContain(`.PP Exit status: ${plain(statuses.join("; "))}.`);
  });

  test.each(GLOBAL_OPTIONS.map(({ long, hidden, help }) => [long, hidden, help] as const))(
    "the option --%s (hidden: %p)",
    (long, hidden, help) => {
      const tag = new RegExp(`\\.TP (-. *, )?(-., )?--${long}(=\\S+)? `);
      expect(tag.test(text)).toBe(!hidden);
      if (!hidden) expect(text).toContain(plain(help));
    },
  );

  test.each([...SETTING_NAMES])("the setting %s", (name) => {
    expect(text).toContain(`.TP ${name} ${capital(SCHEMA[name].help)}`);
  });

  test.each(Object.entries(EXIT))("the exit status %s: %d", (_name, status) => {
    expect(text).toContain(`.TP ${status} `);
  });

  test.each([
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "COMMANDS",
    "OPTIONS",
    "SETTINGS",
    ...TOPICS.map((topic) => topic.title),
    "FILES",
    "EXIT STATUS",
    "ENVIRONMENT",
    "EXAMPLES",
    "SEE ALSO",
  ])("the section %s", (name) => {
    expect(source).toContain(`\n.SH "${name}"\n`);
  });

  test.each([
    [
      "CORES",
      "CPU cores per socket; further options of qemu's -smp after a comma. Allowed: a whole number from 1 to 512. Default: 2. Also --cores.",
    ],
    ["UEFI", "Default: off. Also --uefi, --no-uefi."],
    ["SPICE_TICKETING", "Default: on."],
    ["CLR_NORM", "Default: \\033[0m."],
    ["PROFILES", "Default: ~/vm."],
    ["RESCUE_ISO", "CD image of the rescue system. .TP"],
  ])("of %s: %s", (name, facts) => {
    expect(text.slice(text.indexOf(`.TP ${name} `)).slice(0, 250)).toContain(facts);
  });
});

test.each([...ARCHES])("the architecture %s, from its table", (name) => {
  const { diskBus, biosName, boots } = ARCH[name];
  const way = (boots as readonly string[]).includes("bios") ? biosName : "UEFI";
  expect(text).toContain(`.TP ${name} boots by ${way} (`);
  expect(text.slice(text.indexOf(`.TP ${name} boots`)).split(".TP")[1]).toContain(`default disk: ${diskBus}`);
});

test("names only existing commands", () => {
  expect(Object.keys(COMMANDS_PROSE).filter((name) => !COMMANDS.has(name))).toEqual([]);
});

test("has the program's name", () => {
  const other = buildManual("my-vm");
  expect(other).toStartWith('.TH "MY-VM" "1" ');
  expect(other).toContain("/etc/my\\-vm.conf");
  expect(other).not.toMatch(/PROG|\/etc\/vm/);
});

test("has the package's date", () => {
  expect(date).toMatch(/^\d{4}-\d\d-\d\d$/);
  expect(source).toStartWith(`.TH "VM" "1" "${date}" "vm ${version}" `);
});

test("is reproducible", () => {
  expect(buildManual("vm")).toBe(source);
});

describe("roff: escapes", () => {
  test.each<[string, string]>([
    ["--no-uefi", String.raw`\-\-no\-uefi`],
    ["\\033[0m", String.raw`\e033[0m`],
    ["it's `x`", String.raw`it\(aqs \(gax\(ga`],
    ["~/a^b", String.raw`\(ti/a\(hab`],
    ["S0, …", "S0, ..."],
    ["Ж", String.raw`\[u0416]`],
  ])("literal %s", (given, roff) => {
    expect(literal(given)).toBe(roff);
  });

  test.each<[string, string]>([
    ["a well-known `--opt`", String.raw`a well-known \fB\-\-opt\fR`],
    ["-x, or --long: a - b", String.raw`\-x, or \-\-long: a \- b`],
    ["don't \\ it", String.raw`don't \e it`],
    ["tcp::5555-:22", String.raw`tcp::5555\-:22`],
  ])("prose %s", (given, roff) => {
    expect(prose(given)).toBe(roff);
  });

  test("text that starts like a request is escaped", () => {
    expect(fill(".x 'y'")).toEqual([String.raw`\&.x 'y'`]);
    expect(item(".x", "'y")).toEqual([".TP", String.raw`\&.x`, String.raw`\&'y`]);
    expect(item(bold(".x"), "y")[1]).toBe(String.raw`\fB.x\fR`);
  });

  test("lines are short, and no word is lost", () => {
    const words = Array.from({ length: 200 }, (_, index) => `.${"x".repeat(index % 13)}`).join(" ");
    const lines = fill(words);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(78);
    expect(lines.map((line) => line.replace(/^\\&/, "")).join(" ")).toBe(words);
  });
});
