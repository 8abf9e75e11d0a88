#!/bin/bash
# Mounts each installed system, by its own fstab, below /mnt/system1, /mnt/system2 …, with /proc, /sys and /dev.
set -u
mdadm --assemble --scan --no-degraded 2>/dev/null
vgchange --activate y --noudevsync >/dev/null 2>&1
udevadm settle --timeout=10

number=0
probe=$(mktemp -d)
while read -r device type; do
  case $type in
    ext[234] | xfs | btrfs | f2fs) ;;
    *) continue ;;
  esac
  if findmnt --source "$device" >/dev/null; then continue; fi
  mount -r -t "$type" "$device" "$probe" 2>/dev/null || continue
  found=
  if [ -s "$probe/etc/fstab" ]; then found=1; fi
  umount "$probe"
  [ -n "$found" ] || continue
  number=$((number + 1))
  root=/mnt/system$number
  mkdir -p "$root"
  mount -t "$type" "$device" "$root" || continue
  mount-fstab "$root/etc/fstab" "$root"
  for dir in proc sys dev; do mount --bind "/$dir" "$root/$dir"; done
  echo "$device is mounted on $root"
done < <(lsblk --noheadings --raw --paths --output NAME,FSTYPE)
rmdir "$probe"
[ "$number" -gt 0 ]
