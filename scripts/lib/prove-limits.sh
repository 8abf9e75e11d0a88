# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by prove: `limits` has a guest whose kernel enforces the limits of VMs, of root and of a user whose manager
# starts with the host, and once more without systemd; `cron` has namespaces without systemd, where cron starts VMs.

prove_limits() {
  local who
  kind=guest vms=0 limit=900
  host_root
  went || return
  check "busy VMs of root and of a lingering user, one of each with autostart" limits_vms
  went || return
  check "a service that reports" limits_report
  went || return
  check "the disk of the host" host_disk
  went || return
  check "boot with systemd" limits_boot END
  went || return
  check "no session, and the user's VM is up" limits_linger
  check "control: no limits" limits_hold 'root none' 60 999
  for who in 'root scope' 'root unit' 'user scope' 'user unit'; do check "$who" limits_hold "$who" 10 30; done
  kill_host
  check "boot without systemd" limits_boot END init=/usr/local/sbin/bare
  went || return
  check "own control group" limits_hold 'bare group' 10 30
  kill_host
}

prove_user() { inside runuser -u prove -- env HOME=/home/prove TMPDIR=/home/prove "$@"; }

# limits_vm AS DIRECTORY [limited [SETTING...]]: a VM there whose guest is never idle.
limits_vm() {
  "$1" mkdir -p -m 700 "$2"
  "$1" vm -d "$2" -m 16M -c 1 -p '' --inplace --no-netdev create B --from=/mnt/busy.img --disk-size=1M
  [ -z "${3-}" ] || "$1" vm -d "$2" set CPU_QUOTA=25% MEMORY_MAX=192M IO_WEIGHT=50 "${@:4}"
}

limits_vms() {
  put_program x64 "$root/usr/local/bin"
  # Jumps to itself (EB FE).
  { printf '\xeb\xfe' && head -c 508 /dev/zero && printf '\x55\xaa'; } >"$root/mnt/busy.img"
  truncate -s 1M "$root/mnt/busy.img"
  inside useradd -m -u 1000 prove
  mkdir -p "$root/var/lib/systemd/linger"
  touch "$root/var/lib/systemd/linger/prove"
  limits_vm inside /srv/none
  limits_vm inside /srv/busy limited SLICE=prove.slice
  limits_vm inside /srv/unit limited
  limits_vm prove_user /home/prove/busy limited SLICE=prove.slice
  limits_vm prove_user /home/prove/unit limited
  inside env SYSTEMD_OFFLINE=1 vm -d /srv/unit autostart on --system
  prove_user env SYSTEMD_OFFLINE=1 vm -d /home/prove/unit autostart on --user
}

limits_report() {
  cat >"$root/usr/local/lib/measure" <<'TEXT'
# measure WHO WHAT DIRECTORY: of the VM's qemu, in percent of a processor, and what its control group says.
measure() {
  local pid group before after seconds=20
  pid=$("$1" vm -d "$3" status --json | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p' | head -n 1)
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
  ticks() { sed 's/.*) //' "/proc/$pid/stat" | { read -ra field && echo $((field[11] + field[12])); }; }
  before=$(ticks) && sleep "$seconds" && after=$(ticks)
  echo "LIMITS $2: cpu $(((after - before) / seconds)) %, cpu.max $(cat "$group/cpu.max"), memory.current $(cat "$group/memory.current"), memory.max $(cat "$group/memory.max"), weight $(cat "$group/io.weight" "$group/io.bfq.weight" | paste -sd' '), $group"
  [ ! -d /run/systemd/system ] || echo "UNIT $2: $("$1" systemctl "--$([ "$1" = root ] && echo system || echo user)" show \
    --property=CPUQuotaPerSecUSec,MemoryMax,IOWeight,Slice "${group##*/}" | paste -sd' ')"
  echo "STATUS $2: $("$1" vm -d "$3" status | grep '^limits:')"
}
root() { "$@"; }
user() { runuser -u prove -- env HOME=/home/prove XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
TEXT
  cat >"$root/usr/local/sbin/report" <<'TEXT'
#!/bin/bash
stty -F /dev/ttyS1 raw
exec >/dev/ttyS1 2>&1
. /usr/local/lib/measure
until case $(systemctl is-system-running) in init* | starting) false ;; esac do sleep 1; done
for ((n = 0; n < 300; n++)); do
  [ "$(user systemctl --user is-active vm@home-prove-unit.service)" != active ] || break
  sleep 1
done
echo "LINGER $(user systemctl --user is-active vm@home-prove-unit.service), $(loginctl list-sessions --no-legend | wc -l) sessions"
root vm -d /srv/none run --detach
measure root 'root none' /srv/none
root vm -d /srv/none stop --force
root vm -d /srv/busy run --detach
measure root 'root scope' /srv/busy
root vm -d /srv/busy stop --force
measure root 'root unit' /srv/unit
user vm -d /home/prove/busy run --detach
measure user 'user scope' /home/prove/busy
user vm -d /home/prove/busy stop --force
measure user 'user unit' /home/prove/unit
echo END
TEXT
  cat >"$root/usr/local/sbin/bare" <<'TEXT'
#!/bin/bash
# The first process instead of systemd.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs run /run
stty -F /dev/ttyS1 raw
exec >/dev/ttyS1 2>&1 </dev/null
. /usr/local/lib/measure
vm -d /srv/busy run --detach
measure root 'bare group' /srv/busy
echo END
while :; do sleep 60; done
TEXT
  chmod 755 "$root/usr/local/sbin"/{report,bare}
  report_unit
}

# limits_boot LINE [WORD...]: until the host has said that.
limits_boot() {
  start_host "${@:2}"
  reported "$1"
}

limits_linger() {
  grep '^LINGER' "$scratch/report"
  holds "$scratch/report" '^LINGER active, 0 sessions'
}

# limits_hold WHAT LEAST MOST: percent of a processor.
limits_hold() {
  local line percent
  line=$(grep "^LIMITS $1: " "$scratch/report")
  grep -E "^(UNIT|STATUS) $1: " "$scratch/report" || :
  percent=${line#*: cpu } percent=${percent%% *}
  note "${line#*: }"
  [ "$percent" -ge "$2" ] || fail "it had $percent % of a processor, less than $2"
  [ "$percent" -le "$3" ] || fail "it had $percent % of a processor, more than $3"
  echo "$line" >"$scratch/line"
  [ "$1" = 'root none' ] || holds "$scratch/line" 'cpu.max 25000 100000,' 'memory.current [0-9]+, memory.max 201326592,'
  case $1 in *scope | *group) holds "$scratch/line" '/prove\.slice/' ;; esac
}

# --- cron

prove_cron() {
  limit=900
  host_root
  went || return
  check "two VMs of root and one of a user, with autostart by cron" cron_vms
  went || return
  check "first boot" cron_boot 1
  check "second boot" cron_boot 2
}

cron_vms() {
  put_program x64 "$root/usr/local/bin"
  nasm -f bin -I "$top/test/guests/" -o "$root/mnt/service.img" "$top/test/guests/service.asm"
  truncate -s 1M "$root/mnt/service.img"
  inside useradd -m -u 1000 prove
  cron_vm inside '/srv/first vm' --order=1
  cron_vm inside /srv/second%vm --order=2
  cron_vm prove_user "/home/prove/user's"
  inside crontab -l
  inside crontab -u prove -l
}

# cron_vm AS DIRECTORY [OPTION...]: root's HOME is another here than cron's, as it may be under sudo.
cron_vm() {
  "$1" mkdir -p -m 700 "$2"
  "$1" vm -d "$2" -m 16M -c 1 -p '' --inplace --no-netdev create C --from=/mnt/service.img --disk-size=1M
  "$1" vm -d "$2" autostart on --cron "${@:3}"
}

# cron_boot N: all three start for the Nth time.
cron_boot() {
  local directory n pid
  unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash -ec '
    cd "$1"
    mount -t proc proc proc
    mount -t tmpfs -o mode=755 run run
    exec env -i PATH=/usr/bin:/bin "$(command -v chroot)" . /usr/sbin/cron -f
  ' boot "$root" </dev/null >"$scratch/console" 2>&1 &
  pid=$!
  for directory in '/srv/first vm' '/srv/second%vm' "/home/prove/user's"; do
    for ((n = 0; n < 300; n++)); do
      [ -d "/proc/$pid" ] || { cat "$scratch/console" && fail "cron does not run"; }
      [ "$(inside qemu-io -U -r -f qcow2 -c 'read -v 512 4' "$directory/disk-0.img" | sed -n 's/^00000200:  \(..\).*/\1/p')" != "0$1" ] || break
      sleep 2
    done
    [ "$n" -lt 300 ] || { ps ax && fail "$directory: not started $1 times"; }
  done
  # Without a shutdown.
  kill -KILL "$pid"
  wait "$pid" || :
  inside qemu-img check -q '/srv/first vm/disk-0.img'
  note "3 of 3 VMs were started with it, and $1 times in all"
}
