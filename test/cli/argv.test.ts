import { describe, expect, test } from "bun:test";
import { parseArgv } from "../../src/cli/argv.ts";
import { DISK_SYNTAX, FORWARD_SYNTAX, IMAGE_SYNTAX, SHARE_SYNTAX } from "../../src/machine/parse.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { COMMANDS } from "../../src/cli/registry.ts";
import { intentOf, wordsOf } from "./lines.ts";

/** Every spelling → its effect. `_` is replaced by the value of the next column. */
const SPELLINGS: [spellings: string, meaning: string][] = [
  ["-D AHCI=1G | -DAHCI=1G | --disks=AHCI=1G | --disks AHCI=1G | --d AHCI=1G", "DISKS=AHCI=1G"],
  ["-D AHCI=1G,NVME=5G", "DISKS=AHCI=1G,NVME=5G"],
  ["-D '' | --disks=", "DISKS="],
  ["-H ::1 | -H::1 | --host=::1 | --host ::1", "HOST=::1"],
  ["-S 2 | -S2 | --sockets=2 | --sockets 2 | --so 2", "SOCKETS=2"],
  ["-a i686 | -ai686 | --arch=i686 | --a i686", "QEMUARCH=i686"],
  ["-c 8 | -c8 | --cores=8 | --cores 8 | --c 8", "CORES=8"],
  ["-d /vm | -d/vm | --hostdir=/vm | --hostdir /vm | --hostd /vm", "hostdir=/vm"],
  ["-f tcp::1-:2 | -ftcp::1-:2 | --forward=tcp::1-:2 | --fo tcp::1-:2", "FORWARDS+=tcp::1-:2"],
  ["-i AHCI=/x | -iAHCI=/x | --image=AHCI=/x | --im AHCI=/x", "IMAGES+=AHCI=/x"],
  ["-k | --keep-cd | --k", "KEEPCD=1"],
  ["--no-keep-cd | --no-k", "KEEPCD="],
  ["-m 4G | -m4G | --memory=4G | --mem 4G", "MEMORY=4G"],
  ["-n | --no-colors | --no-c", "noColors"],
  ["-p 5901 | -p5901 | --port=5901 | --p 5901", "PORT=5901"],
  ["-p '' | --port= | --port ''", "PORT="],
  ["-r my-rescue | -rmy-rescue | --rescue=my-rescue | --res my-rescue", "RESCUE=my-rescue"],
  ["--smbios type=1,serial=7 | --smbios=type=1,serial=7", "SMBIOS+=type=1,serial=7"],
  ["-s a:/x | -sa:/x | --share=a:/x | --sh a:/x", "SHARES+=a:/x"],
  ["-s out:rw:/a·b", "SHARES+='out:rw:/a b'"],
  ["-t 30 | -t30 | --timeout=30 | --ti 30 | --tmeout=30 | --tmeout 30", "TIMEOUT=30"],
  ["-t ''", "TIMEOUT="],
  ["-u | --uefi | --ue", "UEFI=1"],
  ["--no-uefi | --no-u", "UEFI="],
  ["--secure-boot", "SECURE_BOOT=on"],
  ["--no-secure-boot", "SECURE_BOOT="],
  ["--tpm", "TPM=2.0"],
  ["--no-tpm", "TPM="],
  ["--no-netdev | --no-n", "USENETDEV="],
  ["--netboot", "NETBOOT=first"],
  ["--no-netboot", "NETBOOT=last"],
  ["--netdev | --ne", "USENETDEV=1"],
  ["--net net=lab | --net=net=lab", "NETWORKS+=net=lab"],
  ["--inplace | --inp | --no-tmpdir | --no-t", "INPLACE=1"],
  ["--use-tmpdir | --us", "INPLACE="],
  ["--jail", "JAIL=auto"],
  ["--no-jail", "JAIL=off"],
  ["--debug", "debug"],
];

describe("each spelling of an option", () => {
  const cases = SPELLINGS.flatMap(([spellings, meaning]) =>
    spellings.split(" | ").map((spelling) => [spelling, `${meaning} | [run()]`] as const),
  );
  test.each(cases)("%s → %s", (line, meaning) => {
    expect(intentOf(line)).toBe(meaning);
  });

  test("covers all options", () => {
    const tried = new Set(SPELLINGS.flatMap(([spellings]) => spellings.split(/[ =]/)));
    const untried = GLOBAL_OPTIONS.filter(
      ({ long }) => !tried.has(`--${long}`) && !/^(version|help|licenses|label)$/.test(long),
    );
    expect(untried).toEqual([]);
  });
});

test("an option of a command that is named as one for all has its short form, too", () => {
  for (const { long, short } of GLOBAL_OPTIONS)
    for (const command of COMMANDS.values())
      for (const option of command.options.filter((one) => one.long === long))
        expect([command.name, long, option.short]).toEqual([command.name, long, short]);
});

test.each([
  ["--label=web --label db stop", "labels=web,db | stop()"],
  ["stop @web --force @db.x-1", "labels=web,db.x-1 | stop(--force)"],
  ["--label=web stop --label=web", "labels=web | stop()"],
  ["backup S0 @web", "labels=web | backup(snapshot=S0)"],
  ["backup S0 @web text", "labels=web | backup(snapshot=S0, description=text)"],
  ["stop -- @web", "64: unknown command 'web'"],
  ["status @web", "64: '@web' is not a command, and status takes no label"],
  ["exec @web id", "exec([@web id])"],
  ["exec --label=web id", "labels=web | exec([id])"],
  ["stop @backup", "stop() backup()"],
  ["stop @web @backup", "64: stop: in a batch the option --label stands first"],
  ["@stop @web", "64: unknown command 'web'"],
  ["--label=web @backup @stop", "labels=web | backup() stop()"],
  ["--label=web", "64: run: several VMs cannot be run in the foreground"],
  ["--label=", "64: --label: '' is not allowed"],
])("labels: %s → %s", (line, meaning) => expect(intentOf(line)).toBe(meaning));

test.each([
  ["", "[run()]"],
  ["--", "[run()]"],
  ["-h", "help"],
  ["--help", "help"],
  ["-v", "version"],
  ["--licenses", "licenses"],
  ["--lic", "licenses"],
  ["--version", "version"],
  ["-hv", "help version"],
  ["-c 8 -h", "CORES=8 help"],
  // Help comes before validation.
  ["-h bogus words here", "help"],
  ["-nuk", "UEFI=1 KEEPCD=1 noColors | [run()]"],
  ["-nukc8 run", "UEFI=1 KEEPCD=1 CORES=8 noColors | run()"],
  ["-u --no-uefi", "UEFI= | [run()]"],
  ["--no-uefi -u", "UEFI=1 | [run()]"],
  ["-c 1 -c 2", "CORES=2 | [run()]"],
  ["-d a -d b", "hostdir=b | [run()]"],
  ["-f tcp::1-:2 -f udp::3-:4", "FORWARDS+=tcp::1-:2 FORWARDS+=udp::3-:4 | [run()]"],
  ["-f ''", "FORWARDS=() | [run()]"],
  ["-f tcp::1-:2 -f '' -f udp::3-:4", "FORWARDS=() FORWARDS+=udp::3-:4 | [run()]"],
  ["--share= -s a:/x", "SHARES=() SHARES+=a:/x | [run()]"],
  // [compat] Never the VM's own disks.
  ["--image=", "[run()]"],
  ["-i VIRT=/a -i '' -i SCSI=/b", "IMAGES+=SCSI=/b | [run()]"],
  ["create G --image=VIRT=/a -i SCSI=raw=/b", "create(guestname=G, image=VIRT=/a,SCSI=raw=/b)"],
  // From the user's document.
  [
    "-c 8 -m 4G @create WS10 /iso/image.iso @run @backup",
    "CORES=8 MEMORY=4G | create(guestname=WS10, isoimage=/iso/image.iso) run() backup()",
  ],
  [
    "-c 8 -m 4G @create WS10 /iso/image.iso @job prepare @run @backup",
    "CORES=8 MEMORY=4G | create(guestname=WS10, isoimage=/iso/image.iso) job(jobname=prepare) run() backup()",
  ],
  [
    "--no-uefi --tmeout=30 @restore S2 @job add-ssh-keys",
    "UEFI= TIMEOUT=30 | restore(snapshot=S2) job(jobname=add-ssh-keys)",
  ],
  ["restore 2023-05-10", "restore(snapshot=2023-05-10)"],
  ["-- -odd.iso", "[run(isoimage=-odd.iso)]"],
  ["-", "[run(isoimage=-)]"],
  // After a single command options have the same meaning.
  ["create -m 256M foo", "MEMORY=256M | create(guestname=foo)"],
  ["create foo -m 256M", "MEMORY=256M | create(guestname=foo)"],
  [
    "create foo x.iso -m256M --uefi -f tcp::1-:2",
    "MEMORY=256M UEFI=1 FORWARDS+=tcp::1-:2 | create(guestname=foo, isoimage=x.iso)",
  ],
  ["@create foo -c 8", "CORES=8 | create(guestname=foo)"],
  ["-c 1 run -c 8", "CORES=8 | run()"],
  ["run -bm 4G", "MEMORY=4G | run(--detach)"],
  ["x.iso -m 4G", "MEMORY=4G | [run(isoimage=x.iso)]"],
  ["x.iso --detach -m 4G", "MEMORY=4G | [run(--detach, isoimage=x.iso)]"],
  ["status -d DIR", "hostdir=DIR | status()"],
  ["run --version", "version | run()"],
  ["backup S0 text --inplace", "INPLACE=1 | backup(snapshot=S0, description=text)"],
  ["backup S0 --hostdir=DIR", "hostdir=DIR | backup(snapshot=S0)"],
  ["exec --hostdir=DIR -- ls -l", "hostdir=DIR | exec([ls -l])"],
  ["ssh -d DIR ls", "hostdir=DIR | ssh([ls])"],
  ["ssh ls -d DIR", "ssh([ls -d DIR])"],
  // A command's own option takes precedence over a global one of that name, and over abbreviations.
  ["stop --timeout=5", "stop(timeout=5)"],
  ["stop -t 5", "stop(timeout=5)"],
  ["pause -t 5", "TIMEOUT=5 | pause()"],
  ["-t 1 stop --timeout=5", "TIMEOUT=1 | stop(timeout=5)"],
  // -n and -f as in other programs.
  ["prune -n", "prune(--dry-run)"],
  ["adopt -n", "adopt(--dry-run)"],
  ["-n prune", "noColors | prune()"],
  ["destroy -f", "destroy(--force)"],
  ["stop -f", "stop(--force)"],
  ["console --log -f", "console(--log, --follow)"],
  ["cp -p a :b", "cp(--preserve, [a :b])"],
  ["create foo --disk=1G", "create(guestname=foo, disk-size=1G)"],
  ["create foo --disks=VIRT=1G", "DISKS=VIRT=1G | create(guestname=foo)"],
  // [compat]
  ["--inplace @create X @run", "INPLACE=1 | create(guestname=X) run()"],
  // Spellings of help.
  ["help", "help"],
  ["@help", "help"],
  ["-d DIR help", "hostdir=DIR help"],
  ["help run", "run() help"],
  ["help @run", "run() help"],
  ["run -h", "run() help"],
  ["run foo bar -h", "64: run: 'bar' is one argument too many"],
  ["help nothing", "64: unknown command 'nothing'"],
  ["help start", "64: unknown command 'start'"],
])("%s → %s", (line, meaning) => {
  expect(intentOf(line)).toBe(meaning);
});

describe("an invalid command line", () => {
  test.each([
    ["-c", "64: option -c needs a value"],
    ["-c many", "64: -c: 'many' is not allowed"],
    ["-c ''", "64: -c: '' is not allowed"],
    ["-c0", "64: -c: '0' is not allowed"],
    ["--cores=-1", "64: --cores: '-1' is not allowed"],
    ["--port=99999", "64: --port: '99999' is not allowed"],
    ["-p --uefi", "64: -p: '--uefi' is not allowed"],
    ["-D IDE=30G", "64: -D: 'IDE=30G' is not allowed"],
    ["-D AHCI=1G,NVME", "64: -D: 'NVME' is not allowed"],
    ["-i /x.img", "64: -i: '/x.img' is not allowed"],
    ["-f 5555:22", "64: -f: '5555:22' is not allowed"],
    ["-f tcp::1-:2,x", "64: -f: 'x' is not allowed"],
    ["-s /srv", "64: -s: '/srv' is not allowed"],
    ["-s a:rw:", "64: -s: 'a:rw:' is not allowed"],
    ["-r a/b", "64: -r: 'a/b' is not allowed"],
    ["-r ''", "64: -r: '' is not allowed"],
    ["-a vax", "64: -a: 'vax' is not allowed"],
    ["-m lots", "64: -m: 'lots' is not allowed"],
    ["-H a,b", "64: -H: 'a,b' is not allowed"],
    ["-t -5", "64: -t: '-5' is not allowed"],
    ["-d ''", "64: -d: '' is not allowed"],
    ["--uefi=1", "64: option --uefi takes no value"],
    ["--no-uefi=", "64: option --no-uefi takes no value"],
    ["--u", "64: option --u is ambiguous"],
    // Options that the earlier program did not have make no abbreviation ambiguous.
    ["--deb", "64: unknown option --deb"],
    ["--ho x", "64: option --ho is ambiguous"],
    ["--no", "64: option --no is ambiguous"],
    ["--tme 5", "64: unknown option --tme"],
    ["-x", "64: unknown option -x"],
    ["--constructor", "64: unknown option --constructor"],
    ["--__proto__=1", "64: unknown option --__proto__"],
    ["-h -x", "64: unknown option -x"],
    ["-v --bogus", "64: unknown option --bogus"],
    ["@run @nothing", "64: unknown command 'nothing'"],
  ])("%s → %s", (line, meaning) => {
    expect(intentOf(line)).toBe(meaning);
  });

  test.each([
    // In a batch an option must come first, as it applies to all commands.
    ["create foo -m 256M @run", "for all commands: vm -m 256M @create foo @run"],
    ["-c 4 @create foo @run -m 256M --uefi", "for all commands: vm -c 4 -m 256M --uefi @create foo @run"],
    ["-n @backup S0 a·text --inplace @run", "for all commands: vm -n --inplace @backup S0 'a text' @run"],
    ["@run --detach -p '' @exec -- ls -l", "for all commands: vm -p '' @run --detach @exec -- ls -l"],
    [
      "backup S0 -d DIR",
      "did you mean: vm -d DIR backup S0\nusage: vm backup [OPTIONS] [SNAPSHOT [DESCRIPTION]]",
    ],
    // A command's option before the command.
    ["--force destroy", "did you mean: vm destroy --force"],
    ["-n --keep-last 2 --dry-run prune", "did you mean: vm -n prune --dry-run --keep-last 2"],
    ["-b run", "did you mean: vm run -b"],
    ["--bogus run", "all options: vm -h"],
    [
      "exec -t ls",
      "exec passes stdin on, and has no terminal; with one: vm ssh, vm console\noptions of exec: vm exec -h",
    ],
    ["ssh -p 22", "put options of ssh after --: vm ssh -- -p 22\noptions of ssh: vm ssh -h"],
    ["-n destroy --froce", "did you mean: vm -n destroy --force\noptions of destroy: vm destroy -h"],
    ["prune --keep-dialy=7", "did you mean: vm prune --keep-daily=7\noptions of prune: vm prune -h"],
    ["destroy -x", "options of destroy: vm destroy -h"],
    // Values in the syntax of other programs.
    ["-f 2222:22 run", `did you mean: vm -f tcp:127.0.0.1:2222-:22 run\nallowed: ${FORWARD_SYNTAX}`],
    ["run -f8080:80/udp", `did you mean: vm run -fudp:127.0.0.1:8080-:80\nallowed: ${FORWARD_SYNTAX}`],
    ["--forward=0.0.0.0:80:80", `did you mean: vm --forward=tcp:0.0.0.0:80-:80\nallowed: ${FORWARD_SYNTAX}`],
    ["-f 22", `allowed: ${FORWARD_SYNTAX}`],
    ["-D 10G @create A", `did you mean: vm -D AHCI=10G @create A\nallowed: ${DISK_SYNTAX}`],
    ["create A -D virt=10G", `did you mean: vm create A -D VIRT=10G\nallowed: ${DISK_SYNTAX}`],
    ["-i disk.img", `did you mean: vm -i AHCI=disk.img\nallowed: ${IMAGE_SYNTAX}`],
    ["-s /srv/data", `did you mean: vm -s data:/srv/data\nallowed: ${SHARE_SYNTAX}`],
    ["-n bakcup S0", "did you mean: vm -n backup S0\nall commands: vm help"],
    ["@run @bakcup a·b", "did you mean: vm @run @backup 'a b'\nall commands: vm help"],
    ["hibernate now", "save the guest's RAM to disk, and end qemu: vm suspend\nall commands: vm help"],
    [
      "template it",
      "make the VM a template, which can only be cloned: vm set TEMPLATE=on\nall commands: vm help",
    ],
    ["undefine it", "remove the working files; snapshots stay: vm destroy\nall commands: vm help"],
    [
      "save it",
      "save the guest's RAM to disk, and end qemu: vm suspend\nmake a snapshot: vm backup\nall commands: vm help",
    ],
    ["shutdown now", "shut the guest down: vm stop\nall commands: vm help"],
    ["help rnu", "did you mean: vm help run\nall commands: vm help"],
    [
      "backup S0 text list",
      "usage: vm backup [OPTIONS] [SNAPSHOT [DESCRIPTION]]\nto run list next: vm backup S0 text @list",
    ],
  ])("%s: the hint says %s", (line, hint) => {
    expect(() => parseArgv(wordsOf(line), "vm")).toThrow(expect.objectContaining({ hint }));
  });

  test("lists the allowed values", () => {
    expect(() => parseArgv(wordsOf("-c many"), "vm")).toThrow(
      expect.objectContaining({ hint: "allowed: a whole number from 1 to 512" }),
    );
    expect(() => parseArgv(wordsOf("--bogus"), "myvm")).toThrow(
      expect.objectContaining({ hint: "all options: myvm -h" }),
    );
  });
});
