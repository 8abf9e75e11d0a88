#!/bin/busybox sh
# shellcheck shell=dash
# /init of full.cz: finds the CD, puts the squashfs image named by stagename= under a writable overlay, and goes
# over to it. It reads the arguments of ALT's bootchain: automatic=, stagename=, lowmem.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

while read -r module; do
  insmod "/modules/$module" 2>/dev/null
done </modules/order

# argument NAME: the value of NAME=, the last one counts.
argument() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }
# part KEY: the value of KEY: in automatic=KEY:value,KEY:value
part() { argument automatic | tr , '\n' | sed -n "s/^$1://p"; }

stage=$(argument stagename)
marker=$(part fuid)
stage=${stage:-rescue}

# has_stage DEVICE: mounts it on /cd when it is the CD.
has_stage() {
  mount -t iso9660 -o ro "$1" /cd 2>/dev/null || return
  [ -f "/cd/$stage" ] && [ -e "/cd/$marker" ] && return
  umount /cd
  return 1
}

find_cd() {
  tries=0
  while [ $tries -lt 150 ]; do
    for device in /dev/sr* /dev/sd* /dev/vd* /dev/nvme*n*; do
      if [ -b "$device" ] && has_stage "$device"; then return; fi
    done
    tries=$((tries + 1))
    usleep 200000
  done
  echo "stand-in: no CD with $stage ($(argument automatic))"
  return 1
}

find_cd || exec sh
image=/cd/$stage
mount -t tmpfs -o mode=755 tmpfs /over
mkdir /over/upper /over/work
# Without "lowmem" the image goes into memory, so that the CD could be taken out.
if ! grep -qw lowmem /proc/cmdline; then
  cp "$image" /over/image
  image=/over/image
fi
losetup -r /dev/loop0 "$image"
mount -t squashfs -o ro /dev/loop0 /below
mount -t overlay -o lowerdir=/below,upperdir=/over/upper,workdir=/over/work overlay /root || exec sh
mount -o move /cd /root/mnt/cdrom
for dir in dev proc sys; do mount -o move "/$dir" "/root/$dir"; done
exec switch_root /root /sbin/init
