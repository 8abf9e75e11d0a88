#!/bin/bash
# mount-fstab FSTAB DIR: mounts below DIR what FSTAB lists, the upper directories first. What is there already stays.
set -u
fstab=$1 top=${2%/}
status=0
while read -r dir source type options; do
  case $type in
    swap | proc | sysfs | tmpfs | devpts | nfs* | cifs | 9p | iso9660 | udf) continue ;;
  esac
  case ,$options, in *,noauto,*) continue ;; esac
  if mountpoint -q "$top$dir"; then continue; fi
  mkdir -p "$top$dir"
  mount -t "$type" -o "$options" "$source" "$top$dir" || status=1
done < <(awk '/^[^#]/ && $2 ~ /^\// { print $2, $1, $3, $4 }' "$fstab" | sort)
exit "$status"
