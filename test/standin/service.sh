#!/bin/sh
# service NAME ACTION, for the one service there is.
case $1,${2-} in
  sshd,start)
    mkdir -p /run/sshd
    exec /usr/sbin/sshd -f /etc/openssh/sshd_config
    ;;
  sshd,stop) exec pkill -o -x sshd ;;
  sshd,status) exec pgrep -o -x sshd ;;
esac
echo "service: cannot $*" >&2
exit 1
