import { expect, test } from "bun:test";
import { buildDefaults } from "../../src/config/defaults.ts";
import { parseSettings, SETTING_NAMES, type RawSettings, type SettingName } from "../../src/config/schema.ts";
import { REACH_OF, reachesOfSettings } from "../../src/vm/reach-settings.ts";

const defaults = buildDefaults({ prog: "vm", home: "/home/u", hostArch: "x86_64", libexec: "/usr/lib/vm" });
const at = {
  hostdir: "/vm/web",
  workdir: "/tmp/web",
  macros: {
    MEDIA: undefined,
    MIRROR: undefined,
    HOSTDIR: "/vm/web",
    INDIR: "/tmp/web/.in",
    DATADIR: "/tmp/web/.out",
  },
  insertsCd: true,
};
const shown = (raw: RawSettings): string[] =>
  reachesOfSettings(Object.keys(raw) as SettingName[], parseSettings({ ...defaults, ...raw }), at).map(
    ({ kind, what, writable }) => `${kind} ${what}${writable ? " rw" : ""}`,
  );

test("each setting is classed as reaching the host, harmless, or ignored in a VM's own file", () => {
  expect(Object.keys(REACH_OF)).toEqual([...SETTING_NAMES]);
  for (const name of SETTING_NAMES)
    expect([
      name,
      ["harmless", "ignored", undefined].includes(REACH_OF[name] as string) || typeof REACH_OF[name],
    ]).toEqual([name, typeof REACH_OF[name] === "string" ? true : "function"]);
});

/** For each setting that reaches something a value that does. */
const REACHING: readonly [RawSettings, string[]][] = [
  [{ ISO: "/etc/shadow" }, ["cd /etc/shadow"]],
  [{ FORWARDS: "smb=/home" }, ["share /home rw"]],
  [{ FORWARDS: "tftp=/srv" }, ["netboot /srv"]],
  [{ FORWARDS: "hostfwd=udp::53-:53" }, ["port udp::53-:53"]],
  [{ FORWARDS: "hostfwd=tcp:192.0.2.1:53-:53" }, ["port tcp:192.0.2.1:53-:53"]],
  [{ FORWARDS: "guestfwd=tcp:10.0.2.9:1-cmd:id" }, ["command id"]],
  [{ FORWARDS: "guestfwd=tcp:10.0.2.9:1-file:/home/u/.profile" }, ["device file:/home/u/.profile"]],
  [{ HOST: "0.0.0.0" }, ["port spice 0.0.0.0:5900"]],
  [{ HOST: "::" }, ["port spice [::]:5900"]],
  [{ SHARES: ["a:rw:/", "b:/etc"] }, ["share / rw", "share /etc"]],
  [{ SHARES: ["a:@MIRROR@/../.."] }, ["share @MIRROR@/../.."]],
  [{ IMAGES: ["VIRT=raw=/dev/sda"] }, ["image /dev/sda rw"]],
  [{ NETWORKS: ["bridge=br0"] }, ["network bridge=br0"]],
  [{ NETWORKS: ["tap=tap0"] }, ["network tap=tap0"]],
  [{ NETWORKS: ["net=lab"] }, ["network net=lab"]],
  [{ NETBOOT_DIR: "/srv" }, ["netboot /srv"]],
  [{ MEDIA_MIRROR: "/../home" }, ["file @MEDIA@/../home"]],
  [{ MEDIA_STORAGE: "/../home" }, ["file @MEDIA@/../home"]],
  [{ SSHKEYS: ["/etc/shadow"] }, ["file /etc/shadow"]],
  [{ PROFILES: "/tmp/evil" }, ["job /tmp/evil"]],
  [{ LIBEXEC: "/tmp/evil" }, ["job /tmp/evil"]],
  [{ OVMF_CODE: "/x" }, ["file /x"]],
  [{ OVMF_VARS: "/x" }, ["file /x"]],
  [{ SPICE_TLS_DIR: "/x" }, ["file /x"]],
  [{ RESCUE_ISO: "/x" }, ["cd /x"]],
  [{ RESCUE_FORWARDS: "smb=/home" }, ["share /home rw"]],
  [{ RESCUE_SHARES: ["a:/etc"] }, ["share /etc"]],
  [{ RESCUE_KERNEL: "/x" }, ["file /x"]],
  [{ RESCUE_VMLINUX: "/x" }, ["file /x"]],
  [{ RESCUE_INITRD: "/x" }, ["file /x"]],
];

test.each(REACHING)("%j reaches %j", (raw, expected) => expect(shown(raw)).toEqual(expected));

test("every setting that can reach something is tried here, and none does with its default or within the VM", () => {
  const tried = new Set(REACHING.flatMap(([raw]) => Object.keys(raw)));
  const reaching = SETTING_NAMES.filter((name) => typeof REACH_OF[name] === "function");
  expect(reaching.filter((name) => !tried.has(name))).toEqual([]);
  const outside = new Set<SettingName>(["SSHKEYS", "PROFILES", "LIBEXEC"]);
  for (const name of reaching)
    if (!outside.has(name)) expect([name, shown({ [name]: defaults[name] })]).toEqual([name, []]);
  expect(
    shown({
      SHARES: ["a:rw:@HOSTDIR@", "b:rw:@DATADIR@", "c:@MEDIA@/x"],
      IMAGES: ["VIRT=disk-0.img"],
      FORWARDS: "hostfwd=tcp:127.0.0.1:5555-:22",
      HOST: "127.0.0.1",
      NETWORKS: ["user", "passt"],
    }),
  ).toEqual([]);
});
