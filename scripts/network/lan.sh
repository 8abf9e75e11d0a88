# shellcheck shell=sh
# The network among a user's VMs: process 1 of a PID namespace of its own, so that the kernel ends all of it with this.
# $1: first three bytes of its addresses; $2: on or off: the outside. Runs in the network's directory.
# Standard input is a pipe that each member's qemu holds open: its end is the end of the network.
set -eu
prefix=$1 outside=$2
trap '' HUP INT TERM

: >namespace
unshare --net mount --bind /proc/self/ns/net namespace
in_lan() { nsenter --net=namespace -- "$@"; }
# Of a program's pid file.
runs() { kill -0 "$(cat "$1")" 2>/dev/null; }

serve() { in_lan dnsmasq --conf-file="$PWD/dnsmasq.conf"; }
# In the host's network namespace, from which it connects to the outside.
connect() {
  pasta --quiet --config-net --no-map-gw --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none \
    --netns-only --netns "$PWD/namespace" --pid pasta.pid
}

in_lan ip link set dev lo up
in_lan ip link add name br0 type bridge
in_lan ip address add "$prefix.1/24" dev br0
in_lan ip link set dev br0 up
if [ "$outside" = on ]; then
  connect
  in_lan sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  in_lan nft "add table ip vm; add chain ip vm out { type nat hook postrouting priority 100; };
    add rule ip vm out ip saddr $prefix.0/24 ip daddr != $prefix.0/24 masquerade"
fi
serve

# Members enter the namespaces of this process. /proc is the host's, and so is its number.
# shellcheck disable=SC2016 # its own variables
in_lan sh -c '
  read -r pid rest </proc/self/stat
  echo "$pid" >ready.new
  mv ready.new ready
  exec sleep infinity' </dev/null &

# A member that joins asks whether the network is still there: then it answers, once what has exited runs again.
while read -r word; do
  runs dnsmasq.pid || serve || true
  [ "$outside" = off ] || runs pasta.pid || connect || true
  echo "$word" >answer.new
  mv answer.new answer
done
