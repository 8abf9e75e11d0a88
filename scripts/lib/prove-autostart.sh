# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by prove: a host with systemd that starts ten VMs with it, is rebooted, and loses its power. `autostart` has it
# as a guest; `autostart-container` in namespaces, on a disk of its own, where nothing is emulated.

kind=guest vms=${VM_PROVE_VMS:-10} rounds=${VM_PROVE_ROUNDS:-5}
prove_autostart_container() { kind=container && prove_autostart; }

prove_autostart() {
  local round
  limit=900
  host_root
  went || return
  autostart_rounds
}

autostart_rounds() {
  local reboots=0 cuts=0 crashes=0
  check "$vms VMs, with autostart and an order" make_vms
  went || return
  check "a service that reports" host_report
  went || return
  check "the disk of the host" host_disk
  went || return
  check "first boot" boot_host
  went || return
  for ((round = 1; round <= rounds; round++)); do
    check "reboot $round of $rounds" reboot_host
    ! went || reboots=$((reboots + 1))
    check "power cut $round of $rounds" cut_power
    ! went || cuts=$((cuts + 1))
  done
  check "kills of a VM's qemu" crash_vm
  ! went || crashes=1
  kill_host
  echo "-- $system: $vms VMs: $reboots of $rounds reboots, $cuts of $rounds power cuts, $crashes of 1 row of kills"
}

# host_root: a Debian with systemd, cron and qemu. A guest's kernel is one of this machine's.
host_root() {
  new_root bookworm amd64 host systemd-sysv dbus udev qemu-system-x86 qemu-utils pigz procps libpam-systemd dbus-user-session cron
}

# vm_dir N: the order of names is that of the start.
vm_dir() { printf '/srv/vm/vm%02d' "$1"; }
vm_unit() { printf 'vm@srv-vm-vm%02d.service' "$1"; }

make_vms() {
  local n
  put_program x64 "$root/usr/local/bin"
  nasm -f bin -I "$top/test/guests/" -o "$root/mnt/service.img" "$top/test/guests/service.asm"
  truncate -s 1M "$root/mnt/service.img"
  for ((n = vms; n > 0; n--)); do
    install -d -m 700 "$root$(vm_dir "$n")"
    inside vm -d "$(vm_dir "$n")" -m 16M -c 1 -p '' --inplace --no-netdev create "V$n" \
      --from=/mnt/service.img --disk-size=1M
    inside env SYSTEMD_OFFLINE=1 vm -d "$(vm_dir "$n")" autostart on --system --restart "--order=$n" --timeout=120
  done
  inside vm autostart >"$scratch/out"
  holds "$scratch/out" "^$vms +$(vm_dir "$vms") +systemd, system +yes"
}

host_report() {
  cat >"$root/usr/local/sbin/report" <<'TEXT'
#!/bin/bash
# Reports on the second serial port, or in a file, what was started with the host.
if [ -c /dev/ttyS1 ]; then
  stty -F /dev/ttyS1 raw
  exec >/dev/ttyS1 2>/dev/null
else
  exec >/var/report 2>/dev/null
fi
until case $(systemctl is-system-running) in init* | starting) false ;; esac do sleep 1; done
units=(/etc/systemd/system/multi-user.target.wants/vm@*)
units=("${units[@]##*/}")
for unit in "${units[@]}"; do
  systemctl show --property=Id,ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic "$unit" |
    sort | sed 's/.*=//' | paste -sd' ' | sed 's/^/UNIT /'
done
# A unit is active once qemu runs: its guest counts a little later.
for console in /srv/vm/*/console.log; do
  for ((n = 0; n < 600; n++)); do
    ! grep -q STARTED "$console" || break
    sleep 0.5
  done
done
# These guests do not flush, and what was not flushed may be lost with the power: their counters are not to be.
sync /srv/vm/*/disk-0.img
# A process for all of the disks, as a start of qemu's programs is what costs in an emulated host.
disks=(/srv/vm/*/disk-0.img) reads=()
for disk in "${disks[@]}"; do reads+=(-c "open -U -r -o driver=qcow2 $disk" -c 'read -v 512 8' -c close); done
mapfile -t counts < <(qemu-io "${reads[@]}" | sed -n 's/^00000200:  \([0-9a-f ]*[0-9a-f]\) .*/\1/p')
for n in "${!disks[@]}"; do
  qemu-img check -U -q "${disks[n]}"
  echo "DISK ${disks[n]} $? ${counts[n]}"
done
# Those of the last shutdown; a container has one boot ID for all of its boots.
journalctl -o cat -t systemd | sed -n 's/^Stopped \(vm@[^ ]*\).*/STOPPED \1/p' | tail -n "${#units[@]}"
echo END
unit=${units[0]}
grep -qs prove=crash /proc/cmdline /var/prove || exit 0
for ((n = 1; n <= 11; n++)); do
  kill -KILL "$(systemctl show --property=MainPID --value "$unit")"
  for ((wait = 0; wait < 600; wait++)); do
    state=$(systemctl show --property=ActiveState,NRestarts "$unit" | sort | paste -sd' ')
    case $state in "ActiveState=active NRestarts=$n" | ActiveState=failed*) break ;; esac
    sleep 0.5
  done
  echo "KILLED $n $state"
done
vm -d /srv/vm/vm02 stop --timeout=120
sleep 10
echo "BY HAND $(systemctl show --property=ActiveState,Result,NRestarts --value vm@srv-vm-vm02.service | paste -sd' ')"
echo "STATUS $(vm -d /srv/vm/vm01 status | grep -E '^(state|autostart):' | paste -sd' ')"
echo OVER
TEXT
  chmod 755 "$root/usr/local/sbin/report"
  report_unit
}

# report_unit: starts /usr/local/sbin/report at the end of a boot.
report_unit() {
  local unit
  printf '%s\n' '[Unit]' 'After=multi-user.target' '[Service]' 'ExecStart=/usr/local/sbin/report' '[Install]' \
    'WantedBy=multi-user.target' >"$root/etc/systemd/system/report.service"
  ln -sf ../report.service "$root/etc/systemd/system/multi-user.target.wants/"
  # What a host does in its own time; and what these do not need, as an emulated host is slow.
  for unit in {apt-daily,apt-daily-upgrade,dpkg-db-backup,e2scrub_all,fstrim,systemd-tmpfiles-clean}.timer \
    {e2scrub_reap,cron,getty@,console-getty,serial-getty@,container-getty@,modprobe@,systemd-networkd,systemd-timesyncd}.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  mkdir -p "$root/var/log/journal"
  systemd-id128 new >"$root/etc/machine-id" 2>/dev/null || : >"$root/etc/machine-id"
}

# host_disk: the root as a disk; for a guest, an initramfs that mounts it.
host_disk() {
  rm -rf "$root"/var/cache/apt/* "$root"/usr/share/{doc,locale,man} "$root"/var/lib/apt/lists/*
  # The mounts of the root are not on this disk.
  mkdir -p "$scratch/bare" "$scratch/live"
  mount --bind "$root" "$scratch/bare"
  mke2fs -q -t ext4 -d "$scratch/bare" "$scratch/host.img" 2560M
  umount "$scratch/bare"
  [ "$kind" = container ] || host_initrd
}

host_initrd() {
  local kernel release module file
  kernel=$(rescue_kernel)
  release=${kernel##*/vmlinuz-}
  mkdir -p "$scratch/initrd"/{bin,new,dev,proc,modules}
  cp "$(command -v busybox)" "$scratch/initrd/bin/busybox"
  ln -sf busybox "$scratch/initrd/bin/sh"
  # button and evdev: logind is to hear of the power button.
  for module in button evdev virtio_pci virtio_blk ext4 crc32c_generic; do
    modprobe -S "$release" --show-depends "$module" | sed -n 's/^insmod \(\S*\).*/\1/p'
  done | awk '!seen[$0]++' >"$scratch/modules"
  while read -r file; do
    cp "$file" "$scratch/initrd/modules/"
    echo "/modules/${file##*/}"
  done <"$scratch/modules" >"$scratch/initrd/order"
  cat >"$scratch/initrd/init" <<'TEXT'
#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /order); do /bin/busybox insmod "$module"; done
until [ -b /dev/vda ]; do /bin/busybox usleep 100000; done
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount -o move /dev /new/dev
/bin/busybox mount -t proc proc /proc
init=/sbin/init
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in init=*) init=${word#init=} ;; esac
done
/bin/busybox umount /proc
exec /bin/busybox switch_root /new "$init"
TEXT
  chmod 755 "$scratch/initrd/init"
  (cd "$scratch/initrd" && find . | cpio -o -H newc --quiet) >"$scratch/initrd.img"
  cp "$kernel" "$scratch/vmlinuz"
  mkfifo "$scratch/monitor.in" "$scratch/monitor.out"
}

# start_host [WORD...]: further words of the kernel's command line. A power cut is a kill of this qemu: what it has written
# is in the page cache of the machine then, so that it need not wait for the disk.
start_host() {
  rm -f "$scratch/report"
  if [ "$kind" = container ]; then
    start_container "$@"
    return
  fi
  qemu-system-x86_64 -nodefaults -no-reboot -display none -machine pc -cpu max -smp 2 -m 2G \
    -accel tcg,thread=multi -kernel "$scratch/vmlinuz" -initrd "$scratch/initrd.img" \
    -append "console=ttyS0 quiet no_timer_check panic=1 systemd.show_status=0 mitigations=off $*" \
    -drive "file=$scratch/host.img,format=raw,if=virtio,cache=unsafe" -serial "file:$scratch/console" \
    -serial "file:$scratch/report" -monitor "pipe:$scratch/monitor" </dev/null >"$scratch/qemu" 2>&1 &
  echo "$!" >"$scratch/host.pid"
  cat "$scratch/monitor.out" >/dev/null &
}

# start_container [WORD...]: systemd as the first process of namespaces, in a control group of its own.
start_container() {
  local n
  mount -o loop "$scratch/host.img" "$scratch/live"
  echo "$*" >"$scratch/live/var/prove"
  rm -f "$scratch/live/var/report"
  ln -s "$scratch/live/var/report" "$scratch/report"
  unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash -ec '
    cd "$1"
    mount -t cgroup2 cgroup mnt
    mkdir -p "mnt/$2"
    echo 0 >"mnt/$2/cgroup.procs"
    umount mnt
    mount -t proc proc proc
    mount -t sysfs -o ro sys sys
    mount -t tmpfs -o mode=755 dev dev
    for device in null zero full random urandom tty; do cp -a "/dev/$device" dev/; done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=755 run run
    exec unshare --cgroup bash -ec "mount -t cgroup2 cgroup sys/fs/cgroup
      exec env -i container=prove PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --log-target=journal"
  ' prove "$scratch/live" "vm-prove-${scratch##*.}" </dev/null >"$scratch/console" 2>&1 &
  for ((n = 0; n < 100; n++)); do
    [ ! -s "/proc/$!/task/$!/children" ] || break
    sleep 0.1
  done
  tr -d ' ' <"/proc/$!/task/$!/children" >"$scratch/host.pid"
}

# power_off: as by the power button, in order.
power_off() {
  if [ "$kind" = container ]; then
    kill -s RTMIN+4 "$(<"$scratch/host.pid")"
  else
    echo system_powerdown >"$scratch/monitor.in"
  fi
  wait_gone "$(<"$scratch/host.pid")"
}

# kill_host: without a shutdown. What a container has not written to its disk is lost, too, by EXT4_IOC_SHUTDOWN with
# EXT4_GOING_FLAGS_NOLOGFLUSH (linux/ext4.h); a guest's is in its own memory.
kill_host() {
  local pid
  pid=$(<"$scratch/host.pid")
  [ "$kind" != container ] || perl -e 'sysopen(F, shift, 0) && ioctl(F, 0x8004587d, $_ = pack("L", 2)) or die $!' "$scratch/live"
  kill -KILL "$pid" 2>/dev/null || :
  wait_gone "$pid"
}

wait_gone() {
  local n
  for ((n = 0; n < 1200; n++)); do
    if ! [ -d "/proc/$1" ] || grep -q '^State:\sZ' "/proc/$1/status" 2>/dev/null; then
      [ "$kind" = container ] || return 0
      # Its last processes may still end.
      ! umount "$scratch/live" 2>/dev/null || return 0
    fi
    sleep 0.5
  done
  fail "the host does not end"
}

# reported LINE: until the host has said that.
reported() {
  local n
  for ((n = 0; n < 3600; n++)); do
    ! grep -qx "$1" "$scratch/report" 2>/dev/null || return 0
    [ -d "/proc/$(<"$scratch/host.pid")" ] || break
    sleep 0.5
  done
  tail -n 20 "$scratch/console" "$scratch/report"
  fail "the host has not reported $1"
}

# counts FIELD: of each VM, in their order: 1: starts, 2: stops. Each is of four bytes, the lowest first.
counts() {
  local bytes at=$((($1 - 1) * 4))
  while read -ra bytes; do
    printf '%d\n' "0x${bytes[at + 1]}${bytes[at]}"
  done < <(sed -n 's/^DISK [^ ]* 0 //p' "$scratch/report") | paste -sd' '
}

# all_up STARTS STOPS: so often each guest has been started and stopped.
all_up() {
  local n last=0 state begun entered
  for ((n = 1; n <= vms; n++)); do
    # By name: ActiveEnterTimestampMonotonic, ActiveState, Id, InactiveExitTimestampMonotonic
    read -r entered state _ begun < <(sed -n "s/^UNIT \(.* $(vm_unit "$n") .*\)/\1/p" "$scratch/report")
    [ "$state" = active ] || fail "VM $n is ${state:-not reported}"
    [ "$begun" -ge "$last" ] || fail "VM $n was started before the one before it had been"
    last=$entered
  done
  [ "$(counts 1)" = "$(repeat "$1")" ] || fail "starts: $(counts 1) instead of $1 each"
  [ "$(counts 2)" = "$(repeat "$2")" ] || fail "stops: $(counts 2) instead of $2 each"
  note "$vms of $vms active, each begun after the one before was up; on its disk each has $1 starts, $2 stops, and no error"
}
repeat() { for ((n = 0; n < vms; n++)); do echo "$1"; done | paste -sd' '; }

# What each guest's counters are to be.
expect_counts() { printf '%s %s\n' "$1" "$2" >"$scratch/counts"; }

boot_host() {
  start_host
  reported END
  expect_counts 1 0
  all_up 1 0
}

reboot_host() {
  local starts stops n
  read -r starts stops <"$scratch/counts"
  power_off
  expect_counts $((starts + 1)) $((stops + 1))
  start_host
  reported END
  all_up $((starts + 1)) $((stops + 1))
  for ((n = vms; n > 0; n--)); do echo "STOPPED $(vm_unit "$n")"; done >"$scratch/expected"
  grep '^STOPPED' "$scratch/report" | diff "$scratch/expected" -
  note "$(<"$scratch/note"); $vms were stopped in reverse order"
}

cut_power() {
  local starts stops
  read -r starts stops <"$scratch/counts"
  kill_host
  expect_counts $((starts + 1)) "$stops"
  start_host
  reported END
  all_up $((starts + 1)) "$stops"
}

crash_vm() {
  local n
  kill_host
  start_host prove=crash
  reported OVER
  for ((n = 1; n <= 10; n++)); do holds "$scratch/report" "^KILLED $n ActiveState=active NRestarts=$n"; done
  holds "$scratch/report" '^KILLED 11 ActiveState=failed' '^BY HAND .*inactive' '^STATUS .*crashed .*failed '
  note "active again 10 times, failed after the 11th; one shut down by hand stays off"
}
