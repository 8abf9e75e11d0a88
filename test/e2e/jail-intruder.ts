/**
 * A stand-in for a qemu that a guest has taken over: it tries what qemu has no business with, and logs which attempts were
 * refused. What qemu's own seccomp filter forbids, such as fork and exec, it cannot show. System calls are x86-64's.
 */

/** What it tries, and whether only root could do so without a jail. */
export interface Attempt {
  name: string;
  /** Perl that is true if it succeeded; `$t{NAME}` are the targets. */
  perl: string;
  root?: true;
}

const read = (target: string): string => `open($f, "<", ${target}) && defined(sysread($f, $b, 1))`;
const change = (target: string): string => `open($f, "+<", ${target}) && 1`;
const create = (path: string): string => `open($f, ">", ${path}) && unlink(${path})`;
const connect = (target: string): string =>
  `socket($s, AF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un(${target}))`;
/** In a child, as it would change the stand-in itself. */
const apart = (perl: string): string =>
  `my $p = fork; POSIX::_exit((${perl}) ? 1 : 0) if !$p; waitpid($p, 0); $?`;

export const ATTEMPTS: readonly Attempt[] = [
  { name: "read another VM's disk", perl: read("$t{disk}") },
  { name: "write another VM's disk", perl: change("$t{disk}") },
  { name: "list another VM's directory", perl: `opendir($d, $t{other})` },
  { name: "change another VM's settings", perl: change(`"$t{other}/guest.env"`) },
  { name: "connect to another VM's monitor", perl: connect(`"$t{other}/qmp.sock"`) },
  { name: "read the owner's key", perl: read(`"$t{home}/.ssh/id_ed25519"`) },
  { name: "read the owner's settings", perl: read(`"$t{home}/.config/vm.conf"`) },
  { name: "list the owner's home directory", perl: `opendir($d, $t{home})` },
  { name: "write to the owner's home directory", perl: create(`"$t{home}/intruder"`) },
  { name: "read /etc/shadow", perl: read(`"/etc/shadow"`), root: true },
  { name: "read /etc/passwd", perl: read(`"/etc/passwd"`) },
  { name: "list the root directory of the host", perl: `-e "/var" || -e "/root"` },
  { name: "connect to a socket of the host", perl: connect(`"$t{home}/agent"`) },
  { name: "connect to an abstract socket", perl: connect(`"\\0$t{abstract}"`) },
  {
    name: "connect to a port of the host",
    perl: `socket($s, AF_INET, SOCK_STREAM, 0) && connect($s, sockaddr_in($t{port}, inet_aton("127.0.0.1")))`,
  },
  { name: "see a process of the host", perl: `-d "/proc/$t{pid}"` },
  { name: "read its environment", perl: read(`"/proc/$t{pid}/environ"`) },
  { name: "signal it", perl: `kill(0, $t{pid})` },
  // PTRACE_SEIZE, which does not stop it; it ends with this process.
  { name: "trace it", perl: apart(`syscall(101, 0x4206, $t{pid}, 0, 0) == 0`) },
  {
    name: "read a descriptor of the caller",
    perl: `open($f, "<&=", 99) && defined(sysread($f, $b, 1))`,
  },
  { name: "read the caller's environment", perl: `exists $ENV{INTRUDER_SECRET}` },
  { name: "change the VM's settings", perl: change(`"$t{work}/guest.env"`) },
  {
    name: "replace the VM's settings",
    perl: `rename("$t{work}/guest.env", "$t{work}/x") && rename("$t{work}/x", "$t{work}/guest.env")`,
  },
  { name: "change the VM's record", perl: change(`"$t{work}/.vm.json"`) },
  { name: "change the script that starts the VM", perl: change(`"$t{work}/run-vm.sh"`) },
  { name: "change a snapshot of the VM", perl: change(`"$t{host}/backups/S0/manifest.json"`) },
  {
    name: "remove a snapshot of the VM",
    perl: `rename("$t{host}/backups/S0", "$t{host}/backups/S1") && rename("$t{host}/backups/S1", "$t{host}/backups/S0")`,
  },
  { name: "add a job to the VM", perl: create(`"$t{host}/intruder"`) },
  { name: "write to /var/tmp", perl: create(`"/var/tmp/intruder-$$"`) },
  { name: "write to /usr", perl: create(`"/usr/intruder-$$"`), root: true },
  // MS_NOSUID; MNT_DETACH.
  {
    name: "mount a filesystem",
    perl: `syscall(165, $t{none}, $t{work}, $t{tmpfs}, 2, 0) == 0 && syscall(166, $t{work}, 2) == 0`,
    root: true,
  },
  { name: "change its root", perl: apart(`chroot("/usr")`), root: true },
  { name: "become root", perl: apart(`syscall(105, 0) == 0`), root: true },
  { name: "change the kernel's settings", perl: change(`"/proc/sys/kernel/core_pattern"`), root: true },
  {
    name: "change the host's name",
    perl: `my $n = do { open($f, "<", "/proc/sys/kernel/hostname"); <$f> }; chomp $n; syscall(170, $n, length $n) == 0`,
    root: true,
  },
  {
    name: "make a device node",
    perl: `syscall(133, "$t{work}/node", 020600, 0x0103) == 0 && unlink("$t{work}/node")`,
    root: true,
  },
  {
    name: "gain privileges by a setuid program",
    perl: `open($f, "<", "/proc/self/status") && !grep { /^NoNewPrivs:\\s1/ } <$f>`,
  },
  {
    name: "leave a core dump",
    perl: `open($f, "<", "/proc/self/limits") && !grep { /^Max core file size +0 +0 / } <$f>`,
  },
  {
    name: "fill the kernel's memory with messages",
    perl: `open($f, "<", "/proc/self/limits") && !grep { /^Max msgqueue size +0 +0 / } <$f>`,
  },
];

/** The program. As qemu it is asked for its features first: that is left to the real one. */
export const intruder = (realQemu: string, targets: Record<string, string>): string =>
  [
    "#!/usr/bin/perl",
    "use Socket; use POSIX ();",
    `exec ${JSON.stringify(realQemu)}, @ARGV if "@ARGV" =~ /-machine none|--version/;`,
    "my %t = (",
    ...Object.entries({ ...targets, none: "none", tmpfs: "tmpfs" }).map(
      ([name, value]) => `  ${name} => ${perlText(value)},`,
    ),
    ");",
    "$| = 1;",
    "sub try { my ($name, $what) = @_; $done = eval { $what->() }; print STDERR ($done ? 'allowed' : 'refused'), \": $name\\n\" }",
    ...ATTEMPTS.map(({ name, perl }) => `try(${perlText(name)}, sub { ${perl} });`),
    "print STDERR 'uid ', $>, \"\\n\";",
    "exit 7;",
    "",
  ].join("\n");

const perlText = (text: string): string => `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`;
