#!/bin/busybox sh
# Run by busybox acpid when the power button is pressed.
echo POWER BUTTON >/dev/ttyS0
sync
poweroff -f
