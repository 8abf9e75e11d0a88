#!/bin/bash
# What the runner does first in our own rescue: it waits for the guest's disks, which in a saved state come only
# after the host has said `go`, has them named in the order of the bus, and mounts the shares. It uses the shell
# alone wherever it can: starting programs is what takes the time here. Those that it needs are started before `go`, and
# wait.

# Something to read from that never says anything.
exec {NEVER}<> <(:)
nap() { read -rt "$1" -u "$NEVER" _; }

# A small shell that waits for commands, and says when one is done.
start_servant() {
  exec {ERRANDS}<> <(:) {DONE}<> <(:)
  # shellcheck disable=SC2016 # expanded by the inner shell
  "${BUSYBOX[@]}" sh -c 'while read -r line; do eval "$line" </dev/null >/dev/null 2>&1; echo "$line"; done' <&"$ERRANDS" >&"$DONE" {ERRANDS}>&- {DONE}>&- &
  SERVANT=$!
}

send_errand() { echo "$*" >&"$ERRANDS"; }

# Waits until that one is done. A job may have killed the servant. A read that is timed out has taken a part of the line: its
# limit is a time of the clock, which an errand may set.
await_errand() {
  local line='' part=''
  while :; do
    if IFS= read -rt 1 part <&"$DONE"; then
      [ "$line$part" != "$*" ] || return 0
      line=
      continue
    fi
    line+=$part
    kill -0 "$SERVANT" 2>/dev/null && continue
    eval "$*"
    return
  done
}

errand() {
  send_errand "$@"
  await_errand "$@"
}

# Both shares by one program, which waits for its list.
start_mounting() {
  mkfifo /run/rescue-shares
  mapfile SHARES </etc/rescue/shares
  "${BUSYBOX[@]}" mount -a -T /run/rescue-shares 2>/dev/null &
  MOUNTING=$!
}

mount_shares() {
  local IFS=
  printf %s "${SHARES[*]}" >/run/rescue-shares
  # What fails is tried again, and told, by the runner.
  # shellcheck disable=SC2034 # the runner's
  if wait "$MOUNTING"; then SHARES_MOUNTED=1; fi
}

# Ready for any machine: this state is saved, and each job resumes it with disks that did not exist before. The host sends
# the number of disks, the time, a random seed, and `offline` for a job without network, which has no card then.
wait_for_go() {
  local word='' time seed network card
  echo ready >&"$CONTROL"
  until [ "$word" = go ]; do
    read -r word RESCUE_DISKS time seed network <&"$CONTROL" || nap 0.005
  done
  SET_TIME="/usr/bin/date -s @$time || date -s @${time%.*}"
  send_errand "$SET_TIME"
  echo "$seed" >/dev/urandom
  RANDOM=$((16#${seed:0:8}))
  echo 1 >/sys/bus/pci/rescan
  [ "$network" = offline ] || return
  for card in /sys/class/net/*/device; do
    [ ! -e "$card" ] || echo 1 >"$card/../remove"
  done
}

# Sets DISKS: an address on the SCSI bus, a namespace of NVMe, a virtio disk.
list_disks() {
  local disk
  DISKS=()
  for disk in /sys/bus/scsi/devices/[0-9]*:*:*:* \
    /sys/block/vd* /sys/block/nvme[0-9]n[0-9]* /sys/block/nvme[0-9][0-9]n[0-9]*; do
    [ ! -e "$disk" ] || DISKS+=("$disk")
  done
}

wait_for_disks() {
  local tries=0
  list_disks
  while [ "${#DISKS[@]}" -lt "$RESCUE_DISKS" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 1500 ]; then
      echo "rescue: only ${#DISKS[@]} of $RESCUE_DISKS disks have appeared"
      poweroff -f
    fi
    nap 0.01
    list_disks
  done
}

# Gives the disks on the SCSI bus their names in the order of where they are: numbers in a path count as numbers. Those on
# USB come last, wherever its controller is.
name_disks() {
  local disk rest key at keys=()
  for disk in "${DISKS[@]}"; do
    [[ $disk == /sys/bus/scsi/* ]] || continue
    cd -P "$disk" || continue
    rest=$PWD key=
    case $rest in */usb[0-9]*) key=z ;; esac
    while [[ $rest =~ ^([^0-9]*)([0-9]+)(.*)$ ]]; do
      printf -v key '%s%s%020d' "$key" "${BASH_REMATCH[1]}" "$((10#${BASH_REMATCH[2]}))"
      rest=${BASH_REMATCH[3]}
    done
    key="$key$rest $PWD"
    for ((at = ${#keys[@]}; at > 0; at--)); do
      [[ ${keys[at - 1]} > $key ]] || break
      keys[at]=${keys[at - 1]}
    done
    keys[at]=$key
  done
  cd /
  for key in "${keys[@]}"; do
    echo "${key##*/}" >/sys/bus/scsi/drivers_probe
  done
}

# The runner's listener, which waits until a job has started.
start_listener() {
  exec {LISTEN_GATE}<> <(:)
  { read -r _ && listen "$SHELL_PID"; } <&"$LISTEN_GATE" &
  # shellcheck disable=SC2034 # the runner's
  LISTENER=$!
}

# In a boot, the port may appear later than the disks.
open_control() {
  if [ -z "$CONTROL" ] && find_port vm.control.0; then
    exec {CONTROL}<>"$PORT"
    start_listener
  fi
}

start_servant
start_mounting
open_control
[ -z "$RESCUE_WARM" ] || wait_for_go
wait_for_disks
name_disks
open_control
[ -z "$RESCUE_WARM" ] || echo up >&"$CONTROL"
mount_shares
[ -z "$RESCUE_WARM" ] || await_errand "$SET_TIME"
exec {NEVER}>&-
