import { describe, expect, test } from "bun:test";
import {
  FORWARD_SYNTAX,
  findForward,
  parseDisk,
  parseForwards,
  parseHostForward,
  parseImage,
  parseShare,
} from "../../src/machine/parse.ts";
import { DISK_BUSES, IMAGE_FORMATS } from "../../src/machine/types.ts";

const GIB = 1024 ** 3;

describe("parseDisk", () => {
  test.each([...DISK_BUSES])("%s=30G", (bus) => {
    expect(parseDisk(`${bus}=30G`)).toEqual({ bus, sizeBytes: 30 * GIB });
  });
  test.each([
    ["NVME=512", 512],
    ["VIRT=512M", GIB / 2],
    ["SCSI=1T", 1024 * GIB],
  ])("%s has %d bytes", (text, sizeBytes) => {
    expect(parseDisk(text)?.sizeBytes).toBe(sizeBytes);
  });
  test.each([
    "",
    "AHCI",
    "AHCI=",
    "=30G",
    "IDE=30G",
    "ahci=30G",
    "AHCI=0",
    "AHCI=511",
    "AHCI=-1G",
    "AHCI=30X",
    "AHCI=30G=1",
    "AHCI= 30G",
    " AHCI=30G",
    "AHCI:30G",
    "constructor=30G",
    "__proto__=30G",
  ])("rejects %j", (text) => {
    expect(parseDisk(text)).toBeUndefined();
  });
});

describe("parseImage", () => {
  test.each([
    ["VIRT=/data/x.img", "VIRT", undefined, "/data/x.img"],
    ["VIRT=raw=/data/x.img", "VIRT", "raw", "/data/x.img"],
    ["AHCI=qcow2=disk-0.img", "AHCI", "qcow2", "disk-0.img"],
    ["SCSI=a=b.img", "SCSI", undefined, "a=b.img"],
    ["SCSI=raw=a=b.img", "SCSI", "raw", "a=b.img"],
    ["SCSI=RAW=a.img", "SCSI", undefined, "RAW=a.img"],
    ["NVME=raw", "NVME", undefined, "raw"],
    ["NVME=raw=raw", "NVME", "raw", "raw"],
    ["NVME=@MEDIA@/a b,c.img", "NVME", undefined, "@MEDIA@/a b,c.img"],
    ["VIRT=/a\nb", "VIRT", undefined, "/a\nb"],
    ["VIRT=constructor=x", "VIRT", undefined, "constructor=x"],
  ] as const)("%j", (text, bus, format, path) => {
    expect(parseImage(text)).toEqual({ bus, format, path });
  });
  test.each([...IMAGE_FORMATS])("format %s", (format) => {
    expect(parseImage(`VIRT=${format}=x`)).toEqual({ bus: "VIRT", format, path: "x" });
  });
  test.each(["", "VIRT", "VIRT=", "VIRT=raw=", "=x", "IDE=x", "virt=x", "/data/x.img", "constructor=x"])(
    "rejects %j",
    (text) => {
      expect(parseImage(text)).toBeUndefined();
    },
  );
});

describe("parseShare", () => {
  test.each([
    ["mirror:@MIRROR@", "mirror", false, "@MIRROR@"],
    ["out:rw:@DATADIR@", "out", true, "@DATADIR@"],
    ["out:ro:/srv", "out", false, "/srv"],
    ["a:b", "a", false, "b"],
    ["a:/b:c", "a", false, "/b:c"],
    ["a:rw:rw:x", "a", true, "rw:x"],
    ["a:rwx", "a", false, "rwx"],
    ["A1._-:/x y,z\nw", "A1._-", false, "/x y,z\nw"],
    [`${"i".repeat(31)}:/x`, "i".repeat(31), false, "/x"],
  ])("%j", (text, tag, writable, path) => {
    expect(parseShare(text)).toEqual({ tag, writable, path });
  });
  test.each([
    "",
    ":",
    "a",
    "a:",
    ":/x",
    "a:rw:",
    "a:ro:",
    "-a:/x",
    ".a:/x",
    "a b:/x",
    "a,b:/x",
    "ё:/x",
    `${"i".repeat(32)}:/x`,
    "/srv:/x",
  ])("rejects %j", (text) => {
    expect(parseShare(text)).toBeUndefined();
  });
});

describe("parseHostForward", () => {
  test.each([
    ["tcp::5555-:22", "tcp", "", 5555, "", 22],
    ["udp::53-:54", "udp", "", 53, "", 54],
    ["::5555-:22", "tcp", "", 5555, "", 22],
    ["tcp:127.0.0.1:1-10.0.2.15:65535", "tcp", "127.0.0.1", 1, "10.0.2.15", 65535],
    ["tcp:[::1]:5555-:22", "tcp", "::1", 5555, "", 22],
    ["tcp:localhost:65535-guest:1", "tcp", "localhost", 65535, "guest", 1],
  ] as const)("%s", (rule, protocol, hostAddress, hostPort, guestAddress, guestPort) => {
    expect(parseHostForward(rule)).toEqual({ protocol, hostAddress, hostPort, guestAddress, guestPort });
  });
  test.each([
    "",
    "tcp",
    "5555-:22",
    "tcp:5555-:22",
    "tcp::5555:22",
    "tcp::5555-22",
    "tcp::5555",
    "tcp::-:22",
    "tcp::0-:22",
    "tcp::5555-:0",
    "tcp::65536-:22",
    "tcp::5555-:65536",
    "tcp::5555-:22x",
    "tcp::5555-:22-:23",
    "tcp:: 5555-:22",
    "tcp::-1-:22",
    "sctp::1-:1",
    "tcp:::1:5555-:22",
    "tcp::5555-:22,restrict=on",
    "tcp::5555-:22\n",
  ])("rejects %j", (rule) => {
    expect(parseHostForward(rule)).toBeUndefined();
  });
});

describe("findForward to port 22", () => {
  test.each([
    ["", undefined],
    ["hostfwd=tcp::5555-:22", "127.0.0.1:5555"],
    ["hostfwd=tcp:0.0.0.0:5555-10.0.2.15:22", "127.0.0.1:5555"],
    ["hostfwd=tcp:192.168.1.5:5555-:22", "192.168.1.5:5555"],
    ["hostfwd=udp::5555-:22", undefined],
    ["hostfwd=tcp::22-:80", undefined],
    ["guestfwd=tcp:10.0.2.100:22-cmd:x hostfwd=tcp::80-:80 hostfwd=:127.0.0.2:1022-:22", "127.0.0.2:1022"],
    ["hostfwd=tcp::1-:22 hostfwd=tcp::2-:22", "127.0.0.1:1"],
    ["hostfwd=tcp:[::1]:5555-:22", "::1:5555"],
    ["hostfwd=tcp:fe80.local_1%eth0:5555-:22", "fe80.local_1%eth0:5555"],
    // ssh would take it for an option, or pass it to a shell.
    ["hostfwd=tcp:-Fconfig:5555-:22", undefined],
    ["hostfwd=tcp:-oProxyCommand=x:5555-:22", undefined],
    ["hostfwd=tcp:[-Fconfig]:5555-:22", undefined],
    ["hostfwd=tcp:a;b:5555-:22", undefined],
    ["hostfwd=tcp:a@b:5555-:22", undefined],
    ["hostfwd=tcp:$(x):5555-:22", undefined],
    ["hostfwd=tcp::0-:22", undefined],
    ["hostfwd=tcp::65536-:22", undefined],
    ["hostfwd=tcp:-F:1-:22 hostfwd=tcp::2-:22", "127.0.0.1:2"],
  ])("%s", (options, place) => {
    const found = findForward(options.split(" "), 22);
    expect(found && `${found.host}:${found.port}`).toBe(place);
  });
});

describe("parseForwards", () => {
  test.each<[string, string[]]>([
    ["", []],
    [" , ,", []],
    ["tcp::5555-:22", ["hostfwd=tcp::5555-:22"]],
    ["hostfwd=tcp::5555-:22", ["hostfwd=tcp::5555-:22"]],
    ["hostfwd=tcp::1-:2,hostfwd=udp::3-:4", ["hostfwd=tcp::1-:2", "hostfwd=udp::3-:4"]],
    ["tcp::1-:2, udp::3-:4 ,", ["hostfwd=tcp::1-:2", "hostfwd=udp::3-:4"]],
    ["restrict=on,net=10.0.3.0/24", ["restrict=on", "net=10.0.3.0/24"]],
    ["guestfwd=tcp:10.0.2.100:80-cmd:nc x", ["guestfwd=tcp:10.0.2.100:80-cmd:nc x"]],
    ["tftp=/a,,b,bootfile=x", ["tftp=/a,,b", "bootfile=x"]],
  ])("%j", (text, options) => {
    expect(parseForwards(text)).toEqual({ options });
  });
  test.each([
    ["5555:22", "5555:22"],
    ["tcp::1-:2,bogus", "bogus"],
    ["hostfwd=", "hostfwd="],
    ["hostfwd=tcp::1-:99999", "hostfwd=tcp::1-:99999"],
    ["id=net1", "id=net1"],
    ["netdev=x", "netdev=x"],
    ["restrict", "restrict"],
    ["tcp::1-:2,,tcp::3-:4", "tcp::1-:2,,tcp::3-:4"],
    ["hostfwd=hostfwd=tcp::1-:2", "hostfwd=hostfwd=tcp::1-:2"],
    // qemu reads `,,,` as a comma and the next option: what follows must be checked.
    ["tftp=/a,,,id=evil", "id=evil"],
  ])("rejects %j: %j", (text, malformed) => {
    expect(parseForwards(text)).toEqual({ malformed, allowed: FORWARD_SYNTAX });
  });
  // qemu 7.2's error for each: "Bad host address", "Bad guest address".
  test.each([
    "tcp:[::1]:1-:22",
    "tcp:localhost:1-:22",
    "tcp::1-[fe80::1]:22",
    "tcp::1-guest:22",
    "tcp:256.0.0.1:1-:22",
  ])("rejects %j: qemu accepts only IPv4 addresses", (text) => {
    expect(parseForwards(text)).toEqual({ malformed: text, allowed: FORWARD_SYNTAX });
  });
  test.each(["tcp:127.1:1-:22", "tcp:127.0.0.1:1-10.0.2.15:22,tcp:127.0.0.2:1-:22", "tcp::1-:22,udp::1-:22"])(
    "accepts %j",
    (text) => {
      expect("options" in parseForwards(text)).toBe(true);
    },
  );
  test.each([
    ["tcp::1-:22,tcp:127.0.0.1:1-:80", "tcp:127.0.0.1:1-:80"],
    ["tcp:127.0.0.1:1-:22,tcp:0.0.0.0:1-:80", "tcp:0.0.0.0:1-:80"],
    ["tcp:127.0.0.1:1-:22,hostfwd=tcp:127.0.0.1:1-:22", "hostfwd=tcp:127.0.0.1:1-:22"],
    ["udp::1-:22,udp::1-:23", "udp::1-:23"],
  ])("rejects %j: duplicate port", (text, malformed) => {
    expect(parseForwards(text)).toEqual({ malformed, allowed: "each port of an address once" });
  });
});
