#!/bin/busybox sh
# /init of linux.iso: mount, load what the machine has, run the share's guest.sh, power off.
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1

modprobe -a button evdev
modprobe -aq pvpanic-mmio
acpid -c /etc/acpi -p /acpid.pid -l /acpid.log 2>/dev/null # the power button, from now on

# Buses first, then what appeared on them; ext4, 9p and isofs are loaded by the kernel when mounted.
cat /sys/bus/pci/devices/*/modalias | sort -u | xargs modprobe -aq
cat /sys/bus/virtio/devices/*/modalias 2>/dev/null | sort -u | xargs -r modprobe -aq
modprobe -a sd_mod sr_mod usb_storage

# Loading waits for SATA and SCSI disks; NVMe names come a little later.
for i in $(seq 50); do
	missing=
	for c in /sys/class/nvme/nvme*; do
		[ ! -e "$c" ] || ls -d "$c"/nvme*n* >/dev/null 2>&1 || missing=$c
	done
	[ "$missing" ] || break
	usleep 100000
done

for tag in /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag; do
	[ -e "$tag" ] && [ "$(tr -d '\0' <"$tag")" = in ] &&
		mount -t 9p -o trans=virtio,version=9p2000.L,ro in /in
done

if [ -e /in/guest.sh ]; then
	setsid -c sh /in/guest.sh </dev/ttyS0 >/dev/ttyS0 2>&1
else
	echo LINUX UP
	for b in /sys/block/*; do
		[ -e "$b" ] || break
		n=${b##*/}
		d=$b/device
		serial=$(cat "$b/serial" "$d/serial" 2>/dev/null || tail -c +5 "$d/vpd_pg80" 2>/dev/null)
		echo "$n" $serial $(($(cat "$b/size") * 512))
	done
fi
sync
poweroff -f
