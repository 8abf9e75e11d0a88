#!/bin/bash
# What the runner does first in our own rescue: it waits for the guest's disks, which in a saved state come only
# after the host has said `go`, has them named in the order of the bus, and mounts the shares. It uses the shell
# alone wherever it can: starting programs is what takes the time here.

BUSYBOX=(/usr/bin/busybox)
# Something to read from that never says anything.
exec {NEVER}<> <(:)
nap() { read -rt "$1" -u "$NEVER" _; }

# Ready for any machine: this state is saved, and each job resumes it with disks and shares that did not
# exist before. The host sends the number of disks, the time, and a random seed.
wait_for_go() {
  local word='' time seed
  exec {CONTROL}<>/dev/virtio-ports/vm.control.0
  echo ready >&"$CONTROL"
  until [ "$word" = go ]; do
    read -r word RESCUE_DISKS time seed <&"$CONTROL" || nap 0.005
  done
  { date -s "@$time" || date -s "@${time%.*}"; } >/dev/null 2>&1 &
  echo "$seed" >/dev/urandom
  echo 1 >/sys/bus/pci/rescan
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

[ -z "$RESCUE_WARM" ] || wait_for_go
wait_for_disks
name_disks
if [ -n "$RESCUE_WARM" ]; then
  echo up >&"$CONTROL"
  exec {CONTROL}>&-
fi
# Both by one program; what fails is tried again, and told, by the runner.
"${BUSYBOX[@]}" mount -a -T /etc/rescue/shares 2>/dev/null
exec {NEVER}>&-
wait
