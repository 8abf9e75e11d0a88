/** Contents of a hostile VM directory: each form of each file, and special cases. */
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

export interface Carrier {
  name: string;
  /** One of many. */
  made?: "by rule";
  /** A command that an own directory may have do this, as the manual says. */
  allowed?: string;
  /**
   * Puts it into an in-place VM with the snapshots S0 and S1.
   * @param out a directory outside, with canaries: `secret`, `victim`, `victims/`, `program`, `sock`
   */
  put(dir: string, out: string): void;
}

/** Terminal control sequences of all kinds, with a line break before a forged message. */
const EVIL = "\u001b]0;x\u0007\u001b[2J\u009b31m\u202ex\u2066\u0008\nvm: all is well\r";

const FILES = [
  ".vm.json",
  ".host",
  ".work",
  ".lock",
  "guest.env",
  "vm.defaults",
  "console.log",
  "qemu.log",
  "rescue.log",
  "events.out",
  "qmp.sock",
  "monitor.sock",
  "disk-0.img",
  "efivars.bin",
  ".out",
  ".in",
  "backups",
  "backups/LAST",
  "backups/S0",
  "backups/S0/manifest.json",
  "backups/S0/TS",
  "backups/S0/DESCRIPTION",
  "backups/S0/SHA256SUMS",
  "backups/S0/guest.env",
  "backups/S0/disk-0.img.gz",
  "backups/S0/PROTECTED",
];

const FORMS: readonly [string, (path: string, out: string) => void][] = [
  ["a link to a file", (path, out) => symlinkSync(join(out, "secret"), path)],
  ["a link to a directory", (path, out) => symlinkSync(join(out, "victims"), path)],
  ["a link to a device", (path) => symlinkSync("/dev/zero", path)],
  ["a link to nothing", (path, out) => symlinkSync(join(out, "absent"), path)],
  ["a named pipe", (path) => void execFileSync("mkfifo", [path])],
  [
    "a file of 3 GiB, empty",
    (path) => {
      writeFileSync(path, "");
      truncateSync(path, 3 * 2 ** 30);
    },
  ],
  ["a directory", (path) => void mkdirSync(join(path, "sub"), { recursive: true })],
  ["noise", (path) => writeFileSync(path, EVIL.repeat(3))],
  ["no bytes", (path) => writeFileSync(path, "")],
];

const forms: Carrier[] = FILES.flatMap((file) =>
  FORMS.map(([form, make]) => ({
    name: `${file} is ${form}`,
    made: "by rule",
    ...(file === "backups" && form === "a link to a directory" && { allowed: "backup" }),
    put(dir: string, out: string) {
      const path = join(dir, file);
      rmSync(path, { recursive: true, force: true });
      mkdirSync(dirname(path), { recursive: true });
      make(path, out);
    },
  })),
);

const edit = (path: string, change: (text: string) => string): void =>
  writeFileSync(path, change(readFileSync(path, "utf8")));

/** Changes a JSON file. */
const json = (path: string, change: object): void =>
  edit(path, (text) => JSON.stringify({ ...(JSON.parse(text) as object), ...change }));

const setting = (dir: string, line: string): void => appendFileSync(join(dir, "guest.env"), `${line}\n`);

const OUTSIDE = ["../../../../outside/victim", "../../../../outside/victims", "..", ".", "", "/", ".host/x"];

const RUN = {
  started: "2026-01-01T00:00:00Z",
  detached: true,
  pid: 1,
  typed: { settings: {}, additions: {} },
};

/** A file of a manifest. */
const storedAs = (file: string): object => ({
  name: file,
  file,
  bytes: 5,
  storedBytes: 5,
  allocatedBytes: 5,
  virtualBytes: 5,
});

/** 3,000 nested directories. */
const deep = (path: string): void =>
  void execFileSync("python3", [
    "-c",
    "import os, sys\nos.makedirs(sys.argv[1], exist_ok=True)\nos.chdir(sys.argv[1])\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
    path,
  ]);

/** A program in the directory, which must not be started. */
const script = (out: string): string => `#!/bin/sh\n${join(out, "program")}\n`;

const special: Record<string, Carrier["put"]> = {
  "a mark whose files lead outside": (dir) => json(join(dir, ".vm.json"), { files: OUTSIDE }),
  "a mark that replaces a directory outside": (dir, out) =>
    json(join(dir, ".vm.json"), { replaces: join(out, "victims") }),
  "a mark with a run of odd parts": (dir) =>
    json(join(dir, ".vm.json"), { run: { ...RUN, started: EVIL, forwards: [5, EVIL], display: EVIL } }),
  "a mark with forwards that are options": (dir, out) => {
    writeFileSync(join(dir, "-Fconfig"), `ProxyCommand ${join(out, "program")}\n`);
    json(join(dir, ".vm.json"), { run: { ...RUN, forwards: ["hostfwd=tcp:-Fconfig:2222-:22"] } });
  },
  "a mark whose last run ended oddly": (dir) => json(join(dir, ".vm.json"), { lastRun: EVIL, restored: {} }),
  "a mark that is null": (dir) => writeFileSync(join(dir, ".vm.json"), "null"),
  "a mark with a base outside": (dir, out) =>
    json(join(dir, ".vm.json"), { base: { path: join(out, "secret"), format: "raw" } }),
  "a redo log that leads outside": (dir) => {
    mkdirSync(join(dir, ".vm-ready/backups"), { recursive: true });
    writeFileSync(join(dir, ".vm-ready/.vm.json"), JSON.stringify({ vm: 1, created: "x", files: OUTSIDE }));
    writeFileSync(join(dir, ".vm-ready/victim"), "replaced");
  },
  "a redo log that is a link": (dir, out) => symlinkSync(join(out, "victims"), join(dir, ".vm-ready")),
  "a removal that leads outside": (dir) => {
    writeFileSync(join(dir, ".vm-removing"), JSON.stringify({ files: OUTSIDE }));
    json(join(dir, ".vm.json"), { files: OUTSIDE });
  },
  "partial things that are links": (dir, out) => {
    symlinkSync(join(out, "victims"), join(dir, ".vm-partial-1"));
    symlinkSync(join(out, "victims"), join(dir, "backups/.vm-partial-1"));
  },
  "guest.env with commands": (dir, out) =>
    setting(
      dir,
      `GUESTNAME="$(${join(out, "program")})"\n. ${join(out, "program")}\n${join(out, "program")}`,
    ),
  "guest.env with bash's own variables": (dir, out) =>
    setting(dir, `BASH_ENV=${join(out, "program")}\nHISTFILE=${join(out, "victim")}\nhistory -w`),
  "guest.env with control characters": (dir) => setting(dir, `GUESTNAME='${EVIL.replaceAll("\0", "")}'`),
  "guest.env with a loop": (dir) => setting(dir, "while :; do :; done"),
  "vm.defaults that names programs": (dir, out) =>
    writeFileSync(
      join(dir, "vm.defaults"),
      `-netdev tap,id=n,script=${join(out, "program")}\n-chardev file,id=c,path=${join(out, "victim")}\n'${EVIL}'`,
    ),
  "shares on directories outside": (dir, out) =>
    setting(dir, `SHARES=(\n    "x:rw:/"\n    "y:rw:${out}"\n    "z:rw:@MEDIA@/../x"\n)`),
  "images outside": (dir, out) =>
    setting(dir, `IMAGES=(\n    "VIRT=raw=${out}/victim"\n    "VIRT=raw=../../../../outside/victim"\n)`),
  "ISO and firmware outside": (dir, out) =>
    setting(dir, `ISO="${out}/secret"\nOVMF_VARS="/dev/zero"\nSPICE_TLS_DIR="${out}"\nSSHKEYS=("/dev/zero")`),
  "programs in settings": (dir, out) =>
    setting(dir, `SNAPSHOT_NOTIFY="${out}/program"\nPROFILES="${out}"\nLIBEXEC="${out}"`),
  jobs: (dir, out) => {
    for (const name of [
      "evil.job",
      "evil.pre",
      "evil.post",
      `${EVIL.replaceAll("/", "")}.job`,
      "add-ssh-keys.pre",
    ])
      writeFileSync(join(dir, name), script(out), { mode: 0o755 });
    symlinkSync(join(out, "program"), join(dir, "linked.job"));
  },
  "programs of common names": (dir, out) => {
    for (const name of [
      "check-media",
      "bash",
      "qemu-img",
      "sha256sum",
      "vm",
      "restic",
      ".env",
      "bunfig.toml",
    ])
      writeFileSync(join(dir, name), script(out), { mode: 0o755 });
  },
  "names of control characters": (dir) => {
    mkdirSync(join(dir, `backups/S${EVIL.replaceAll("/", "")}`));
    for (const name of ["", "backups/S0", "backups", ".out"]) writeFileSync(join(dir, name, `x${EVIL}`), "");
  },
  "a description of control characters": (dir) => writeFileSync(join(dir, "backups/S0/DESCRIPTION"), EVIL),
  "a manifest of control characters": (dir) =>
    json(join(dir, "backups/S0/manifest.json"), { tool: EVIL, guest: EVIL, consistency: EVIL, parent: EVIL }),
  "a manifest of another format": (dir) =>
    json(join(dir, "backups/S0/manifest.json"), { version: 99, format: EVIL, tool: EVIL }),
  "a manifest that names files outside": (dir) => {
    json(join(dir, "backups/S0/manifest.json"), {
      files: [...OUTSIDE, "../../../../../outside/secret", "/dev/zero", EVIL].map(storedAs),
    });
  },
  "a manifest with odd numbers": (dir) =>
    edit(join(dir, "backups/S0/manifest.json"), (text) => text.replaceAll(/: \d+/g, ": 1e308")),
  "sums that name files outside": (dir) => {
    const sum = "0".repeat(64);
    const names = [...OUTSIDE, "../../../../../outside/secret", "/dev/zero", "/dev/stdin", `x${EVIL}`];
    appendFileSync(join(dir, "backups/S0/SHA256SUMS"), names.map((name) => `${sum}  ${name}\n`).join(""));
  },
  "sums of a named pipe in the snapshot": (dir) => {
    execFileSync("mkfifo", [join(dir, "backups/S0/pipe")]);
    appendFileSync(join(dir, "backups/S0/SHA256SUMS"), `${"0".repeat(64)}  pipe\n`);
  },
  "LAST that leads outside": (dir, out) => {
    rmSync(join(dir, "backups/LAST"));
    symlinkSync(`${join(out, "victims")}${EVIL}`, join(dir, "backups/LAST"));
  },
  "logs of control characters": (dir) => {
    for (const name of ["qemu.log", "console.log", "rescue.log"]) writeFileSync(join(dir, name), EVIL);
    json(join(dir, ".vm.json"), { run: RUN, lastRun: "unknown" });
  },
  "events of odd forms": (dir) => {
    json(join(dir, ".vm.json"), { run: RUN, lastRun: "unknown" });
    const events = [
      { event: "SHUTDOWN", data: { reason: EVIL }, timestamp: { seconds: 1e300, microseconds: {} } },
      { event: "SHUTDOWN", data: { reason: "constructor" }, timestamp: { seconds: 1, microseconds: 1 } },
      { event: "SHUTDOWN", data: null, timestamp: { seconds: 1, microseconds: 1 } },
    ];
    writeFileSync(join(dir, "events.out"), events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  },
  "sockets that lead outside": (dir, out) => {
    for (const name of ["qmp", "monitor", "backup", "agent", "console"])
      symlinkSync(join(out, "sock"), join(dir, `${name}.sock`));
    json(join(dir, ".vm.json"), { run: RUN, lastRun: "unknown" });
  },
  "a disk with a backing file outside": (dir, out) => {
    rmSync(join(dir, "disk-0.img"));
    execFileSync("qemu-img", [
      "create",
      "-q",
      "-f",
      "qcow2",
      "-u",
      "-F",
      "raw",
      "-b",
      join(out, "secret"),
      join(dir, "disk-0.img"),
      "1M",
    ]);
  },
  "a disk with a data file outside": (dir, out) => {
    const bytes = readFileSync(join(dir, "disk-0.img"));
    bytes[79]! |= 4;
    writeFileSync(join(dir, "disk-0.img"), bytes);
    symlinkSync(join(out, "secret"), join(dir, "data"));
  },
  "a disk whose header is noise": (dir) => {
    const bytes = readFileSync(join(dir, "disk-0.img"));
    writeFileSync(join(dir, "disk-0.img"), bytes.fill(0xff, 8, 104));
  },
  "a snapshot that is no gzip": (dir) => writeFileSync(join(dir, "backups/S0/disk-0.img.gz"), EVIL),
  "a deep tree in .out": (dir) => deep(join(dir, ".out")),
  "a deep tree in a snapshot": (dir) => deep(join(dir, "backups/S0/tree")),
  "a deep tree beside": (dir) => deep(join(dir, "tree")),
};

export const CARRIERS: readonly Carrier[] = [
  ...Object.entries(special).map(([name, put]) => ({ name, put })),
  ...forms,
];
