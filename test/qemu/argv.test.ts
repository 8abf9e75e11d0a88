import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Machine } from "../../src/machine/types.ts";
import { buildQemuArgv } from "../../src/qemu/argv.ts";
import { MACHINES, machineWith, QEMU, type GoldenCase } from "./machines.ts";

const GOLDEN = resolve(import.meta.dir, "../golden");
const SUFFIX = ".args";

/** One argument per line; as a JSON string if it has special characters. */
const render = (argv: readonly string[]): string =>
  argv.map((word) => `${/^$|^"|^\s|\s$|\p{Cc}/u.test(word) ? JSON.stringify(word) : word}\n`).join("");

describe("test/golden has the argv of", () => {
  test.each([...MACHINES])("$title", ({ title, machine, capabilities }) => {
    const file = join(GOLDEN, title + SUFFIX);
    const text = render(buildQemuArgv(machine, capabilities));
    if (process.env.UPDATE_GOLDEN === "1") writeFileSync(file, text);
    expect(existsSync(file) ? readFileSync(file, "utf8") : "absent: UPDATE_GOLDEN=1 writes it").toBe(text);
  });

  test("no machine that no longer exists", () => {
    const known = MACHINES.map(({ title }) => title + SUFFIX);
    expect(readdirSync(GOLDEN).filter((name) => !known.includes(name))).toEqual([]);
  });
});

interface Option {
  flag: string;
  /** The JSON of `-blockdev {…}`. */
  json?: Record<string, any>;
  /** Of all others `[key, value]`, parsed like qemu. */
  pairs: [key: string, value: string][];
}

/** `a=1,,2,b` → `[a, "1,2"], [b, ""]`: a doubled comma is literal, a single one ends a value (qemu's opts_parse). */
function parsePairs(text: string): Option["pairs"] {
  const parts = [""];
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "," && text[at + 1] !== ",") parts.push("");
    else parts[parts.length - 1] += text[text[at] === "," ? at++ : at]!;
  }
  return parts.map((part) => {
    const at = part.indexOf("=");
    return at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)];
  });
}

/** The program's part, without the user's own arguments. */
function optionsOf({ machine, capabilities }: GoldenCase): Option[] {
  const argv = buildQemuArgv({ ...machine, extraArgs: [] }, capabilities);
  const options: Option[] = [];
  for (let at = 1; at < argv.length; at++) {
    const flag = argv[at]!;
    if (/^-(nodefaults|no-user-config|no-reboot|S)$/.test(flag)) continue;
    const value = argv[++at]!;
    const json = value.startsWith("{");
    options.push({ flag, pairs: json ? [] : parsePairs(value), ...(json && { json: JSON.parse(value) }) });
  }
  return options;
}

const valuesOf = (options: Option[], key: string): string[] =>
  options.flatMap(({ pairs }) => pairs.filter(([name]) => name === key).map(([, value]) => value));

/** Paths and names of a machine that the argv contains. */
function textsOf({
  name,
  ram,
  disks,
  cdrom,
  seed,
  firmware,
  shares,
  display,
  files,
  netboot,
}: Machine): string[] {
  return [
    name,
    ...disks.flatMap(({ path, base }) => (base ? [path, base.path] : [path])),
    ...(ram ? [ram.path] : []),
    ...(seed === undefined ? [] : [seed]),
    ...(cdrom ? [cdrom.path] : []),
    ...(firmware ? [firmware.code.path, firmware.vars.path] : []),
    ...shares.map((share) => share.path),
    ...("passwordFile" in display && display.passwordFile ? [display.passwordFile] : []),
    ...Object.values(files),
    ...[netboot.directory ?? [], netboot.file ?? []].flat(),
  ];
}

/** Every key of the program's options. An unescaped comma would yield others. */
const KEYS = {
  "-name": ["guest"],
  "-sandbox": ["on", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"],
  "-machine": [
    "pc",
    "q35",
    "virt",
    "pseries",
    "sata",
    "gic-version",
    "highmem",
    "smm",
    "pflash0",
    "pflash1",
    "memory-backend",
  ],
  "-boot": ["strict"],
  "-chardev": [
    "socket",
    "spicevmc",
    "pipe",
    "id",
    "path",
    "fd",
    "server",
    "wait",
    "logfile",
    "logappend",
    "name",
  ],
  "-mon": ["chardev", "mode"],
  "-object": [
    "rng-random",
    "secret",
    "id",
    "filename",
    "file",
    "memory-backend-file",
    "size",
    "mem-path",
    "share",
  ],
  "-netdev": [
    "user",
    "id",
    "hostfwd",
    "restrict",
    "tftp",
    "bootfile",
    "tap",
    "socket",
    "fd",
    "ifname",
    "script",
    "downscript",
  ],
  "-fsdev": ["local", "id", "path", "security_model", "readonly", "multidevs"],
  "-spice": ["unix", "addr", "port", "tls-port", "x509-dir", "password-secret", "disable-ticketing"],
  "-display": ["none"],
} as Record<string, string[]>;

describe("properties of the argv of", () => {
  describe.each([...MACHINES])("$title", (golden) => {
    const options = optionsOf(golden);

    test("contains every path and name literally", () => {
      const arrived = new Set([
        ...options.flatMap(({ pairs }) => pairs.map(([, value]) => value)),
        ...options.flatMap(({ json }) => [json, json?.backing].flatMap((node) => node?.file.filename ?? [])),
      ]);
      expect(textsOf(golden.machine).filter((text) => !arrived.has(text))).toEqual([]);
    });

    test("has no option from the user's text", () => {
      for (const { flag, pairs } of options)
        for (const [key] of pairs) if (KEYS[flag]) expect(KEYS[flag]).toContain(key);
    });

    test("has no secret: a password is in a file", () => {
      expect(valuesOf(options, "password")).toEqual([]);
      expect(valuesOf(options, "data")).toEqual([]);
    });

    test("has each boot index and each id once", () => {
      const { nics, netboot } = golden.machine;
      const all = valuesOf(options, "bootindex").map(Number);
      // That of network boot is before or behind all others.
      const network =
        nics.length === 0 || netboot.order === "off" ? [] : [netboot.order === "first" ? 0 : 1000];
      const indexes = all.filter((index) => !network.includes(index));
      expect(indexes.toSorted((a, b) => a - b)).toEqual(indexes.map((_, at) => at + 1));
      expect(all).toHaveLength(indexes.length + network.length);
      const ids = [
        ...valuesOf(options, "id"),
        ...options.flatMap(({ json }) => (json ? [json["node-name"] as string] : [])),
      ];
      expect(ids).toEqual([...new Set(ids)]);
      const tags = valuesOf(options, "mount_tag");
      expect(tags).toEqual([...new Set(tags)]);
    });

    test("has each bus address and each drive once, on an existing controller", () => {
      const devices = options.filter(({ flag }) => flag === "-device").map(({ pairs }) => pairs);
      const drives = devices.flatMap((pairs) => pairs.filter(([key]) => key === "drive"));
      const { disks, cdrom, seed } = golden.machine;
      expect(drives).toHaveLength(disks.length + (cdrom ? 1 : 0) + (seed ? 1 : 0));
      const places = devices.flatMap((pairs) => {
        const { bus, addr, "scsi-id": target } = Object.fromEntries(pairs);
        // Several ports and functions of a controller share a bus; qemu chooses those of its own channels.
        return bus !== undefined && !/^(usb0|channels0|serial-bus0)\./.test(bus)
          ? [`${bus} ${addr ?? target ?? ""}`]
          : [];
      });
      expect(places).toEqual([...new Set(places)]);
      const ids = valuesOf(options, "id");
      const controllers = [...ids, "pci", "pcie", "ide"];
      for (const place of places) expect(controllers).toContain(place.replace(/[. ].*$/, ""));
    });
  });
});

describe("the sandbox is", () => {
  const CLOSED = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
  const OPENER = "on,obsolete=deny";
  test.each<[string, string[]]>([
    ["", [CLOSED]],
    ["-m 4G", [CLOSED]],
    ["-netdev user,id=n1", [CLOSED]],
    ["-name bridge", [CLOSED]],
    ["-netdev bridge,id=n1", [OPENER]],
    ["--netdev bridge,id=n1", [OPENER]],
    ["-netdev tap,id=n1,ifname=tap0", [OPENER]],
    ["-nic bridge,br=br1", [OPENER]],
    ["-nic tap", [OPENER]],
    ["-netdev type=bridge,id=n1", [OPENER]],
    ['-netdev {"type":"bridge","id":"n1"}', [OPENER]],
    ["-sandbox off", ["off"]],
    ["--sandbox off", ["off"]],
    ["-sandbox on,spawn=allow -netdev bridge,id=n1", ["on,spawn=allow"]],
  ])("for %j: %j", (line, expected) => {
    const extraArgs = line === "" ? [] : line.split(" ");
    const argv = buildQemuArgv(machineWith({ extraArgs }), QEMU);
    const given = argv.filter((_, index) => /^--?sandbox$/.test(argv[index - 1] ?? ""));
    expect(given).toEqual(expected);
  });
});

test("ends with the extra arguments, unchanged", () => {
  const extraArgs = ["-device", "a,b", "", " ", "-m", "1\n2"];
  expect(buildQemuArgv(machineWith({ extraArgs }), QEMU).slice(-6)).toEqual(extraArgs);
});
