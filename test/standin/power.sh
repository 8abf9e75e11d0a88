#!/bin/sh
# poweroff and reboot of sysvinit take more options than busybox's.
exec /usr/bin/busybox "${0##*/}" -f
