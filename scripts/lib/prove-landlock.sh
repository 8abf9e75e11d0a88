# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by prove: `landlock` has a guest whose kernel and setpriv have Landlock. There a stand-in for the qemus of root
# and of a user tries to change their working directories, and a real one runs, is backed up and stopped.

prove_landlock() {
  local who
  kind=guest vms=0 limit=900
  new_root trixie amd64 landlock bubblewrap qemu-system-x86 qemu-utils pigz procps
  went || return
  check "a VM of root and one of a user" landlock_vms
  went || return
  check "a stand-in for qemu" landlock_stand_in
  check "a first process that reports" landlock_report
  went || return
  check "the disk of the host" host_disk
  went || return
  check "boot" landlock_boot
  for who in root user; do
    check "$who: a qemu that was taken over" landlock_tried "$who" jail refused
    check "$who, control: without a jail" landlock_tried "$who" off allowed
    check "$who: a real qemu" landlock_real "$who"
  done
  check "user, control: bubblewrap alone" landlock_tried user bwrap allowed
  kill_host
}

landlock_vms() {
  put_program x64 "$root/usr/local/bin"
  nasm -f bin -I "$top/test/guests/" -o "$root/mnt/service.img" "$top/test/guests/service.asm"
  truncate -s 1M "$root/mnt/service.img"
  inside useradd -m -u 1000 prove
  landlock_vm inside /srv/guest
  landlock_vm prove_user /home/prove/guest
}

# landlock_vm AS DIRECTORY
landlock_vm() {
  "$1" mkdir -p -m 700 "$2" "$2-share"
  "$1" vm -d "$2" -m 16M -c 1 -p '' -s '' -s "out:rw:$2-share" --inplace --no-netdev create L --from=/mnt/service.img --disk-size=1M
}

# As qemu it is asked for its features first: that is left to the real one.
landlock_stand_in() {
  mkdir -p "$root"/usr/local/lib/{stand-in,old}
  cat >"$root/usr/local/lib/stand-in/qemu-system-x86_64" <<'TEXT'
#!/usr/bin/perl
use POSIX (); use Socket;
exec "/usr/bin/qemu-system-x86_64", @ARGV if "@ARGV" =~ /-machine none|--version/;
sub try { my ($name, $what) = @_; print STDERR $what->() ? "allowed" : "refused", " $name\n" }
socket($s, AF_UNIX, SOCK_STREAM, 0) && bind($s, sockaddr_un("new.sock")) && print STDERR "socket\n";
open($f, "+<", "disk-0.img") && print STDERR "disk\n";
my $share = readlink("/proc/self/cwd") . "-share";
mkdir("$share/a") && mkdir("$share/b") && open($f, ">", "$share/a/file") && rename("$share/a/file", "$share/b/file") &&
  symlink("file", "$share/b/link") && POSIX::mkfifo("$share/fifo", 0600) && open($f, "+<", "$share/b/file") &&
  unlink("$share/b/file", "$share/b/link", "$share/fifo") == 3 && rmdir("$share/a") && rmdir("$share/b") &&
  print STDERR "share\n";
try("new file", sub { open($f, ">", "new") });
try("new symlink", sub { symlink("guest.env", "new-link") });
try("new directory", sub { mkdir("new-directory") });
try("new fifo", sub { POSIX::mkfifo("new-fifo", 0600) });
try("rename", sub { rename("link", "moved") && rename("moved", "link") });
try("removal", sub { unlink("link") });
# One that is replaced while it runs is no mount of its own any more.
my $known = (stat "guest.env")[1];
print STDERR "ready\n";
for (1 .. 60) { last if (stat "guest.env")[1] != $known; sleep 1 }
try("write to what is new", sub { (stat "guest.env")[1] != $known && open($f, "+<", "guest.env") });
exit 7;
TEXT
  cat >"$root/usr/local/lib/old/setpriv" <<'TEXT'
#!/bin/sh
case $* in *landlock*) echo "$0: unrecognized option '--landlock-access'" >&2 && exit 1 ;; esac
exec /usr/bin/setpriv "$@"
TEXT
  chmod 755 "$root/usr/local/lib/stand-in/qemu-system-x86_64" "$root/usr/local/lib/old/setpriv"
}

landlock_report() {
  cat >"$root/usr/local/sbin/landlock" <<'TEXT'
#!/bin/bash
# The first process instead of systemd.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
stty -F /dev/ttyS1 raw
exec >/dev/ttyS1 2>&1 </dev/null
root() { "$@"; }
user() { runuser -u prove -- env HOME=/home/prove TMPDIR=/home/prove "$@"; }
# try WHO HOW DIRECTORY PATH OPTION...
try() {
  local n
  rm -rf "$3"/{new*,moved,link,qemu.log}
  "$1" ln -s guest.env "$3/link"
  "$1" env PATH="$4:$PATH" vm -d "$3" "${@:5}" run >/dev/null &
  for ((n = 0; n < 300; n++)); do
    ! grep -qs ready "$3/qemu.log" || break
    sleep 0.5
  done
  "$1" cp "$3/guest.env" "$3/other.env"
  "$1" mv "$3/other.env" "$3/guest.env"
  wait "$!"
  sed "s/^/TRY $1 $2 /" "$3/qemu.log"
  rm -rf "$3"/{new*,moved,link}
}
real() {
  local n
  "$1" vm -d "$2" run --detach
  echo "RUN $1 $?"
  echo "STATUS $1 $("$1" vm -d "$2" status | grep '^jail:')"
  for ((n = 0; n < 300; n++)); do
    ! grep -q STARTED "$2/console.log" || break
    sleep 0.5
  done
  "$1" vm -d "$2" backup S1
  echo "BACKUP $1 $?"
  "$1" vm -d "$2" backup --ram S2
  echo "RAM $1 $?"
  "$1" vm -d "$2" disk add VIRT=1M
  echo "ADDED $1 $?"
  "$1" vm -d "$2" stop --timeout=120
  echo "STOP $1 $?"
  echo "DISK $1 $(qemu-io -U -r -f qcow2 -c 'read -v 512 8' "$2/disk-0.img" | sed -n 's/^00000200:  \([0-9a-f ]*[0-9a-f]\) .*/\1/p')"
  # Its RAM is a file, which qemu opens by its descriptor.
  "$1" vm -d "$2" verify --boot S2
  echo "RESUMED $1 $?"
}
for who in user root; do
  if [ "$who" = root ]; then directory=/srv/guest; else directory=/home/prove/guest; fi
  echo "DOCTOR $who $("$who" vm -d "$directory" doctor | grep -E '^ *\S* *jail')"
  try "$who" jail "$directory" /usr/local/lib/stand-in
  try "$who" off "$directory" /usr/local/lib/stand-in --no-jail
  real "$who" "$directory"
done
try user bwrap /home/prove/guest /usr/local/lib/stand-in:/usr/local/lib/old
echo END
while :; do sleep 60; done
TEXT
  chmod 755 "$root/usr/local/sbin/landlock"
}

landlock_boot() {
  start_host init=/usr/local/sbin/landlock
  reported END
}

# landlock_tried WHO HOW ANSWER: that to all of the attempts; a socket, the disk and a writable share are always its own.
landlock_tried() {
  local tries
  grep "^TRY $1 $2 " "$scratch/report"
  holds "$scratch/report" "^TRY $1 $2 socket" "^TRY $1 $2 disk" "^TRY $1 $2 share"
  tries=$(grep -cE "^TRY $1 $2 (allowed|refused) " "$scratch/report")
  [ "$tries" = 7 ] || fail "$tries attempts instead of 7"
  tries=$(grep -c "^TRY $1 $2 $3 " "$scratch/report")
  [ "$tries" = 7 ] || fail "$tries of 7 attempts were $3"
  note "7 of 7 attempts were $3"
}

# The counters are of starts and stops.
landlock_real() {
  grep -E "^[A-Z]+ $1 " "$scratch/report" | grep -v ^TRY
  holds "$scratch/report" "^DOCTOR $1 .*Landlock" "^STATUS $1 jail:.*Landlock" "^RUN $1 0" "^BACKUP $1 0" \
    "^RAM $1 0" "^ADDED $1 0" "^STOP $1 0" "^RESUMED $1 0" "^DISK $1 01 00 00 00 01 00 00 00"
  without "$scratch/report" "^STATUS $1 .*can create files"
  note "started, backed up, also with RAM, given a disk, stopped; a copy resumed; $(sed -n "s/^STATUS $1 jail: *//p" "$scratch/report")"
}
