import { describe, expect, test } from "bun:test";
import { buildDefaults } from "../../src/config/defaults.ts";
import type { Parser } from "../../src/config/values.ts";
import type { SettingValue } from "../../src/config/shell-expand.ts";
import {
  isSettingName,
  parseSetting,
  parseSettings,
  SCHEMA,
  SETTING_NAMES,
  type SettingName,
} from "../../src/config/schema.ts";

interface Examples {
  good: [raw: SettingValue, value: unknown][];
  /** An invalid value; `given` if the message names only a part. */
  bad: (SettingValue | { raw: SettingValue; given: string })[];
}

const UUID = "123e4567-e89b-42d3-a456-426614174000";

const macExamples: Examples = {
  good: [
    ["", ""],
    ["auto", "auto"],
    ["52:54:00:AB:cd:01", "52:54:00:ab:cd:01"],
  ],
  bad: ["none", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:12:34", "52-54-00-12-34-56"],
};
const flagExamples: Examples = {
  good: [
    ["", false],
    ["1", true],
    ["no", false],
  ],
  bad: [],
};
const textExamples: Examples = {
  good: [
    ["", ""],
    ["/a b,c\nё", "/a b,c\nё"],
    [["first", "second"], "first"],
  ],
  bad: [],
};
const memoryExamples: Examples = {
  good: [
    ["2G", 2048],
    ["768", 768],
  ],
  bad: ["", "0", "lots", "1K", "2 G"],
};
const forwardExamples: Examples = {
  good: [
    ["", []],
    ["tcp::1-:2,hostfwd=udp::3-:4", ["hostfwd=tcp::1-:2", "hostfwd=udp::3-:4"]],
    [
      ["tcp::1-:2", "", "udp::3-:4"],
      ["hostfwd=tcp::1-:2", "hostfwd=udp::3-:4"],
    ],
    ["restrict=on", ["restrict=on"]],
  ],
  bad: ["22", "tcp::70000-:22", { raw: ["tcp::1-:2", "x"], given: "x" }],
};
const shareExamples: Examples = {
  good: [
    ["", []],
    ["a:/x", [{ tag: "a", path: "/x", writable: false }]],
    [
      ["a:/x", "b:rw:@HOSTDIR@/y"],
      [
        { tag: "a", path: "/x", writable: false },
        { tag: "b", path: "@HOSTDIR@/y", writable: true },
      ],
    ],
  ],
  bad: ["/x", "a:", { raw: ["a:/x", "a:/y"], given: "a" }, { raw: ["a:/x", "y"], given: "y" }],
};
const colourExamples: Examples = {
  good: [
    ["", ""],
    ["\\033[0m", "\\033[0m"],
    ["\\e[1;32m\\x1B[m", "\\e[1;32m\\x1B[m"],
    ["\x1b[1m", "\x1b[1m"],
  ],
  bad: ["red", "\\033[2J", "\\033]0;title\\007", "\\033[1m text"],
};
const count = (max: number): Examples => ({
  good: [
    ["1", 1],
    [String(max), max],
  ],
  bad: ["", "0", String(max + 1), "many", "-1", "2.5"],
});

const keepExamples: Examples = {
  good: [
    ["", undefined],
    ["0", 0],
    ["24", 24],
    ["1000000", 1_000_000],
  ],
  bad: ["-1", "all", "1.5", "1000001"],
};

/** Valid and invalid values of each setting; a new setting without them does not compile. */
const EXAMPLES: Record<SettingName, Examples> = {
  GUESTNAME: textExamples,
  QEMUARCH: {
    good: [
      ["x86_64", "x86_64"],
      ["i686", "i386"],
      ["pentium", "i386"],
    ],
    bad: ["", "vax", "s390x"],
  },
  SOCKETS: count(64),
  // [compat] Options after a comma were passed to qemu.
  CORES: {
    good: [...count(512).good, ["4,threads=2", 4], ["2,maxcpus=8,dies=2", 2]],
    bad: [...count(512).bad, "4,", "4,threads", "4,sockets=2", "4,threads=2,x=1", ",threads=2"],
  },
  MEMORY: {
    good: [...memoryExamples.good, ["2G,slots=2,maxmem=8G", 2048]],
    bad: [...memoryExamples.bad, "2G,", "2G,slots=many", "2G,share=on", ",slots=2"],
  },
  UEFI: flagExamples,
  SECURE_BOOT: flagExamples,
  TEMPLATE: flagExamples,
  TPM: {
    good: [
      ["", ""],
      ["2.0", "2.0"],
    ],
    bad: ["2", "1.2", "yes", "on"],
  },
  ISO: textExamples,
  KEEPCD: flagExamples,
  FORWARDS: forwardExamples,
  HOST: {
    good: [
      ["localhost", "localhost"],
      ["0.0.0.0", "0.0.0.0"],
      ["::1", "::1"],
      ["fe80::1%eth0", "fe80::1%eth0"],
      // [compat] The earlier program required brackets; without an address it had no display.
      ["[::1]", "::1"],
      ["[fe80::1%eth0]", "fe80::1%eth0"],
      ["", ""],
    ],
    bad: ["[::1", "[a b]", "a b", "a,port=1", "a\n", "'"],
  },
  PORT: {
    good: [
      ["", undefined],
      ["5900", 5900],
      ["65535", 65535],
    ],
    bad: ["0", "99999", "5900x", "-1"],
  },
  DISPLAY_PROTOCOL: {
    good: [
      ["spice", "spice"],
      ["vnc", "vnc"],
      ["none", "none"],
    ],
    bad: ["", "SPICE", "rdp"],
  },
  SPICE_SOCKET: flagExamples,
  USENETDEV: flagExamples,
  SHARES: shareExamples,
  IMAGES: {
    good: [
      [[], []],
      [
        ["VIRT=qcow2=disk-0.img", "AHCI=/x,y"],
        [
          { bus: "VIRT", format: "qcow2", path: "disk-0.img" },
          { bus: "AHCI", format: undefined, path: "/x,y" },
        ],
      ],
      ["VIRT=/a b", [{ bus: "VIRT", format: undefined, path: "/a b" }]],
    ],
    bad: ["/x", "IDE=/x", { raw: ["VIRT=/x", "y"], given: "y" }],
  },
  IMAGE_FORMATS: {
    good: [
      [[], []],
      [
        ["raw=/a=b", "qcow2=/x y"],
        [
          { format: "raw", path: "/a=b" },
          { format: "qcow2", path: "/x y" },
        ],
      ],
    ],
    bad: ["raw", "raw=x", "iso=/x", "/x", { raw: ["raw=/x", "y"], given: "y" }],
  },
  IMAGE_NUMBERS: {
    good: [
      [[], []],
      [["12=/a=b"], [{ number: 12, path: "/a=b" }]],
    ],
    bad: ["1", "=/x", "x=/x", "-1=/x", "12345=/x"],
  },
  CONTROLLER_PLACES: {
    good: [
      [[], []],
      [["scsi0=1"], [{ controller: "scsi0", place: 1 }]],
    ],
    bad: ["scsi0", "scsi0=", "scsi=1", "net0=1", "scsi0=100", "scsi0=-1"],
  },
  ACCEL: {
    good: [
      ["auto", "auto"],
      ["kvm", "kvm"],
      ["tcg", "tcg"],
    ],
    bad: ["", "KVM", "xen"],
  },
  DISK_AIO: {
    good: [
      ["auto", "auto"],
      ["io_uring", "io_uring"],
      ["threads", "threads"],
    ],
    bad: ["", "native", "IO_URING"],
  },
  JAIL: {
    good: [
      ["auto", "auto"],
      ["off", "off"],
    ],
    bad: ["", "on", "AUTO"],
  },
  SHARED_RAM: flagExamples,
  SMBIOS: {
    good: [
      [[], []],
      ["", []],
      [
        ["type=1,manufacturer=ACME,, Inc.,serial=a=b", "type=11,value=x,value=x"],
        [
          {
            type: 1,
            fields: [
              ["manufacturer", "ACME, Inc."],
              ["serial", "a=b"],
            ],
          },
          {
            type: 11,
            fields: [
              ["value", "x"],
              ["value", "x"],
            ],
          },
        ],
      ],
      [
        "type=0,release=2.17,uefi=on",
        [
          {
            type: 0,
            fields: [
              ["release", "2.17"],
              ["uefi", "on"],
            ],
          },
        ],
      ],
    ],
    bad: [
      "type=1",
      "serial=7",
      "type=4,serial=7",
      "type=constructor,serial=7",
      "file=/etc/passwd",
      "type=11,path=/etc/passwd",
      "type=1,file=/etc/passwd",
      `type=1,uuid=${UUID}`,
      "type=1,serial=",
      "type=1,serial=1,serial=2",
      "type=1,serial=7,",
      "type=1,serial=7,on",
      "type=0,release=2",
      "type=0,uefi=yes",
      "type=1,serial=a\nb",
      "type=1,serial=a\0b",
      `type=1,serial=${"x".repeat(5000)}`,
      { raw: ["type=1,serial=1", "type=2"], given: "type=2" },
    ],
  },
  SSH_USER: {
    good: [
      ["root", "root"],
      ["me", "me"],
      ["DOMAIN\\\\anna", "DOMAIN\\\\anna"],
    ],
    bad: ["", "-oProxyCommand=x", "a b", "a\n"],
  },
  LABELS: {
    good: [
      ["", []],
      ["web lab-1,x.y", ["web", "lab-1", "x.y"]],
      [
        ["web", "db"],
        ["web", "db"],
      ],
    ],
    bad: ["Web", "1a", "-x", "a/b", "a@b", { raw: ["web", "ж"], given: "ж" }, "x".repeat(64)],
  },
  CPU_QUOTA: {
    good: [
      ["", undefined],
      ["150%", 150],
      ["5", 5],
    ],
    bad: ["0%", "-1%", "1.5%", "%", "12345678%", "50 %"],
  },
  MEMORY_MAX: {
    good: [
      ["", undefined],
      ["3G", 3072],
    ],
    bad: ["0", "lots", "infinity"],
  },
  IO_WEIGHT: {
    good: [
      ["", undefined],
      ["10000", 10_000],
    ],
    bad: ["0", "10001", "x"],
  },
  SLICE: {
    good: [
      ["", ""],
      ["vms-lab.slice", "vms-lab.slice"],
    ],
    bad: ["vms", ".slice", "../x.slice", "a/b.slice", "-x.slice", "a b.slice"],
  },
  DISK_LIMITS: {
    good: [
      ["", []],
      [
        ["0:iops=500,bps=20M", "12:bps=1000"],
        [
          { number: 0, iops: 500, bytesPerSecond: 20 << 20 },
          { number: 12, bytesPerSecond: 1000 },
        ],
      ],
    ],
    bad: [
      "0",
      "0:",
      "0:iops=0",
      "0:iops=1K",
      "0:bps=x",
      "x:iops=1",
      "0:iops=1,iops=2",
      "0:iops=1,",
      "0:bps=9999T",
    ],
  },
  NETWORKS: {
    good: [
      ["", []],
      ["user", [{ kind: "user" }]],
      [
        ["none", "user"],
        [{ kind: "none" }, { kind: "user" }],
      ],
      [
        ["user,link=down,mac=02:00:00:00:00:0A", "user,mac=02:00:00:00:00:0b"],
        [
          { kind: "user", link: "down", mac: "02:00:00:00:00:0a" },
          { kind: "user", mac: "02:00:00:00:00:0b" },
        ],
      ],
    ],
    bad: [
      "tap",
      "user,",
      "user,id=x",
      "user,link=up",
      "user,mac=03:00:00:00:00:01",
      "none,link=down",
      "user,link=down,link=down",
      { raw: ["user", "user", "user", "user", "user"], given: "user" },
      {
        raw: ["user,mac=02:00:00:00:00:01", "user,mac=02:00:00:00:00:01"],
        given: "02:00:00:00:00:01",
      },
    ],
  },
  NETBOOT: {
    good: [
      ["last", "last"],
      ["first", "first"],
      ["off", "off"],
    ],
    bad: ["", "1", "yes"],
  },
  NETBOOT_DIR: {
    good: [
      ["", ""],
      ["/srv/a, b", "/srv/a, b"],
    ],
    bad: ["a", "/a\n"],
  },
  NETBOOT_FILE: {
    good: [
      ["", ""],
      ["x,y.efi", "x,y.efi"],
      ["http://10.0.2.2/x", "http://10.0.2.2/x"],
    ],
    bad: ["a\n", "x".repeat(128)],
  },
  UUID: {
    good: [
      ["", ""],
      [UUID, UUID],
    ],
    bad: ["web", UUID.toUpperCase(), `${UUID} `, UUID.slice(1)],
  },
  LAYOUT: {
    good: [
      ["0", 0],
      ["1", 1],
      ["2", 2],
    ],
    bad: ["", "3", "one"],
  },
  MAC: macExamples,
  UUID_FORMER: {
    good: [
      [[], []],
      [UUID, [UUID]],
      [[UUID, ""], [UUID]],
    ],
    bad: [{ raw: [UUID, "../x"], given: "../x" }],
  },
  CPU: {
    good: [
      ["", ""],
      ["host", "host"],
      ["Skylake-Client-v1,-hle,pdpe1gb=on", "Skylake-Client-v1,-hle,pdpe1gb=on"],
    ],
    bad: ["-x", "a b", "host\n", ",x"],
  },
  DISKS: {
    good: [
      ["", []],
      ["AHCI=512", [{ bus: "AHCI", sizeBytes: 512 }]],
      [
        "NVME=1M,VIRT=2M SCSI=3M",
        [
          { bus: "NVME", sizeBytes: 1 << 20 },
          { bus: "VIRT", sizeBytes: 2 << 20 },
          { bus: "SCSI", sizeBytes: 3 << 20 },
        ],
      ],
      [["AHCI=1M"], [{ bus: "AHCI", sizeBytes: 1 << 20 }]],
    ],
    bad: ["30G", "IDE=30G", { raw: "AHCI=30G,X=1", given: "X=1" }],
  },
  INPLACE: flagExamples,
  MEDIA_MIRROR: textExamples,
  MEDIA_STORAGE: textExamples,
  SSHKEYS: {
    good: [
      ["", []],
      ["/a b.pub", ["/a b.pub"]],
      [
        ["/a", "", "/b"],
        ["/a", "/b"],
      ],
    ],
    bad: [],
  },
  PROFILES: textExamples,
  LIBEXEC: textExamples,
  OVMF_CODE: textExamples,
  OVMF_VARS: textExamples,
  PIGZ_LEVEL: count(9),
  SNAPSHOT_CHAIN: count(500),
  SNAPSHOT_FORMAT: {
    good: [
      ["gz", "gz"],
      ["qcow2", "qcow2"],
    ],
    bad: ["", "zip", "GZ"],
  },
  KEEP_LAST: keepExamples,
  KEEP_HOURLY: keepExamples,
  KEEP_DAILY: keepExamples,
  KEEP_WEEKLY: keepExamples,
  KEEP_MONTHLY: keepExamples,
  KEEP_YEARLY: keepExamples,
  SNAPSHOT_REPO: {
    good: [
      ["", ""],
      ["/srv/my backups", "/srv/my backups"],
      ["sftp:me@host:/srv/restic", "sftp:me@host:/srv/restic"],
      ["rest:http://localhost:8000/", "rest:http://localhost:8000/"],
      ["s3:s3.example.org/bucket", "s3:s3.example.org/bucket"],
    ],
    bad: ["repo", "./repo", "/a\nb", "rest:"],
  },
  SNAPSHOT_PASSWORD_FILE: {
    good: [
      ["", ""],
      ["/etc/vm/restic password", "/etc/vm/restic password"],
    ],
    bad: ["password", "~/password", "/a\nb"],
  },
  SNAPSHOT_NOTIFY: {
    good: [
      ["", ""],
      ["tell-me", "tell-me"],
      ["/opt/my tools/tell", "/opt/my tools/tell"],
    ],
    bad: ["./tell", "bin/tell", "a\nb"],
  },
  SPICE_PASSWORD: {
    good: [
      ["", ""],
      ["p a,ss'", "p a,ss'"],
      ["x".repeat(60), "x".repeat(60)],
    ],
    // The limit of SPICE is 60 bytes (SPICE_MAX_PASSWORD_LENGTH).
    bad: ["x".repeat(61), "a\nb", "ё".repeat(31)],
  },
  SPICE_TICKETING: flagExamples,
  SPICE_TLS_DIR: textExamples,
  STOP_TIMEOUT: count(86_400),
  HOOK_TIMEOUT: {
    good: [
      ["", undefined],
      ["30", 30],
    ],
    bad: ["0", "30s", "-5", "86401"],
  },
  RESCUE: {
    good: [
      ["rescue-x86_64", "rescue-x86_64"],
      ["my rescue", "my rescue"],
    ],
    bad: ["", ".", "..", "a/b", "/a", ".hidden", "-x", "a\nb"],
  },
  RESCUE_ISO: textExamples,
  RESCUE_SOCKETS: count(64),
  RESCUE_CORES: count(512),
  RESCUE_MEMORY: memoryExamples,
  RESCUE_FORWARDS: forwardExamples,
  RESCUE_SHARES: shareExamples,
  RESCUE_KERNEL: textExamples,
  RESCUE_VMLINUX: textExamples,
  RESCUE_INITRD: textExamples,
  RESCUE_WARM: {
    good: [
      ["auto", "auto"],
      ["off", "off"],
    ],
    bad: ["", "on", "AUTO"],
  },
  RESCUE_START_TIMEOUT: count(86_400),
  TIMEOUT: {
    good: [
      ["", undefined],
      ["30", 30],
    ],
    // As a timer, 25 days would be over at once.
    bad: ["0", "30s", "-5", "2160000"],
  },
  CLR_NORM: colourExamples,
  CLR_BOLD: colourExamples,
  CLR_LC1: colourExamples,
  CLR_LC2: colourExamples,
  CLR_OK: colourExamples,
  CLR_ERR: colourExamples,
  CLR_WARN: colourExamples,
};

describe.each(SETTING_NAMES)("%s", (name) => {
  const { good, bad } = EXAMPLES[name];
  test.each(good)("%j is %j", (raw, value) => {
    expect(parseSetting(name, raw)).toEqual({ value });
  });
  if (bad.length > 0)
    test.each(bad)("%j is refused", (example) => {
      const { raw, given } =
        typeof example === "object" && "raw" in example ? example : { raw: example, given: undefined };
      const parsed = parseSetting(name, raw);
      expect("value" in parsed ? parsed.value : "refused").toBe("refused");
      if (given !== undefined) expect(parsed).toMatchObject({ given });
      if (!("value" in parsed)) expect(parsed.allowed).not.toBe("");
    });
});

describe("the built-in defaults", () => {
  const defaults = buildDefaults({ prog: "vm", home: "/home/me", hostArch: "x86_64", libexec: "/lib/vm" });

  test("exist for all settings, and are valid", () => {
    expect(Object.keys(defaults).toSorted()).toEqual(SETTING_NAMES.toSorted());
    expect(() => parseSettings(defaults)).not.toThrow();
  });

  test("are the documented ones", () => {
    expect(parseSettings(defaults)).toMatchObject({
      QEMUARCH: "x86_64",
      SOCKETS: 1,
      CORES: 2,
      MEMORY: 2048,
      UEFI: false,
      KEEPCD: false,
      USENETDEV: true,
      HOST: "localhost",
      PORT: 5900,
      FORWARDS: [],
      DISKS: [{ bus: "AHCI", sizeBytes: 30 * 1024 ** 3 }],
      SHARES: [
        { tag: "mirror", path: "@MIRROR@", writable: false },
        { tag: "in", path: "@HOSTDIR@", writable: false },
        { tag: "out", path: "@DATADIR@", writable: true },
      ],
      RESCUE_SHARES: [
        { tag: "mirror", path: "@MIRROR@", writable: false },
        { tag: "in", path: "@INDIR@", writable: false },
        { tag: "out", path: "@DATADIR@", writable: true },
      ],
      SSHKEYS: ["/home/me/.ssh/id_ed25519.pub", "/home/me/.ssh/id_rsa.pub"],
      PROFILES: "/home/me/vm",
      LIBEXEC: "/lib/vm",
      RESCUE: "rescue-x86_64",
      INPLACE: false,
      SPICE_TICKETING: true,
      TIMEOUT: undefined,
    });
  });

  test("an invalid one is an internal error", () => {
    expect(() => parseSettings({ ...defaults, CORES: "many" })).toThrow("CORES was not checked");
  });
});

test.each(["constructor", "__proto__", "toString", "hasOwnProperty", "", "cores", "CORES "])(
  "%j is not a setting",
  (word) => {
    expect(isSettingName(word)).toBe(false);
  },
);

test("each setting has a help text", () => {
  for (const name of SETTING_NAMES) expect(SCHEMA[name].help).toMatch(/^\S[^\n]*\S$/);
});

describe("facts of a setting's parser", () => {
  test.each(SETTING_NAMES)("%s allows what its error for a NUL says", (name) => {
    const refused = parseSetting(name, "\0");
    const { allowed } = SCHEMA[name].parse as Parser<unknown>;
    expect(allowed).toBe("allowed" in refused ? refused.allowed : undefined);
  });

  test.each(SETTING_NAMES.filter((name) => (SCHEMA[name].parse as Parser<unknown>).choices))(
    "%s accepts each of its choices",
    (name) => {
      const { choices, kind } = SCHEMA[name].parse as Parser<unknown>;
      for (const choice of choices!) expect(parseSetting(name, choice)).toHaveProperty("value");
      if (kind !== "flag") expect(parseSetting(name, "other")).toHaveProperty("allowed");
    },
  );
});
