#!/bin/bash
# /sbin/init of the stand-in: devices by udev, then what autorun= names, as in ALT Rescue, then a shell.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/sshd /run/lock /run/udev
ln -snf /proc/self/fd /dev/fd
for fd in 0:stdin 1:stdout 2:stderr; do ln -snf "fd/${fd%:*}" "/dev/${fd#*:}"; done
if [ -d /sys/firmware/efi ]; then
  modprobe efivarfs
  mount -t efivarfs efivarfs /sys/firmware/efi/efivars
fi
hostname rescue
ip link set lo up
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle --timeout=20

autorun=
for word in $(</proc/cmdline); do
  case $word in autorun=*) autorun=${word#*=} ;; esac
done
if [ -n "$autorun" ]; then
  # method:cdrom,label:,uuid:,directory:/recovery
  declare -A part=([directory]=/recovery)
  IFS=, read -ra pairs <<<"$autorun"
  for pair in "${pairs[@]}"; do part[${pair%%:*}]=${pair#*:}; done
  case "${part[method]},${part[uuid]},${part[label]}" in
    cdrom,*) mount --bind /mnt/cdrom /mnt/autorun ;;
    *,,?*) mount -o ro "LABEL=${part[label]}" /mnt/autorun ;;
    *,?*,*) mount -o ro "UUID=${part[uuid]}" /mnt/autorun ;;
  esac
  program=/mnt/autorun${part[directory]}/autorun
  if [ -x "$program" ]; then
    setsid "$program" </dev/console >/dev/console 2>&1
    echo "stand-in: autorun ended with $?" >/dev/console
  else
    echo "stand-in: no $program" >/dev/console
  fi
fi
while :; do
  setsid --ctty bash --login </dev/console >/dev/console 2>&1
  sleep 1
done
