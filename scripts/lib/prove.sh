# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by prove: printing of checks, source of artefacts, and root directories to check in.

shopt -s inherit_errexit
passed=0 failed=0
version=$(sed -n 's/^ *"version": "\(.*\)",/\1/p' package.json)

# check WHAT COMMAND...: a line that says how it went; `went` repeats it. The command ends at its first error, as under
# set -e; what it notes becomes part of the line. Not to be called where a status is asked for (in an if, before || or
# &&), nor is what calls it: errors do not count for bash in there, not even in a subshell.
result=0
check() {
  local what=$1 log=$scratch/log status=0 start=$SECONDS
  shift
  rm -f "$scratch/note"
  (
    set -e
    "$@"
  ) >"$log" 2>&1 </dev/null &
  wait "$!" || status=$?
  result=$status
  [ ! -s "$scratch/note" ] || what+=": $(<"$scratch/note")"
  [ $((SECONDS - start)) -lt 5 ] || what+=" ($((SECONDS - start)) s)"
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    echo "ok $system $what"
    return
  fi
  failed=$((failed + 1))
  echo "FAILED $system $what: $(grep -v '^ *$' "$log" | tail -n 1 | grep . || echo "status $status")"
  tail -n 20 "$log" | sed 's/^/    /'
}
went() { [ "$result" = 0 ]; }

note() { echo "$*" >"$scratch/note"; }
fail() { echo "$*" && exit 1; }

# ends STATUS COMMAND...: it does so with that status.
ends() {
  local wanted=$1 status=0
  shift
  "$@" || status=$?
  [ "$status" = "$wanted" ] || fail "status $status instead of $wanted: $*"
}

# holds FILE PATTERN...: each of these extended regular expressions is found there.
holds() {
  local file=$1 pattern
  shift
  for pattern; do grep -qE -e "$pattern" "$file" || { cat "$file" && fail "not found: $pattern"; }; done
}

# without FILE PATTERN: it is not found there.
without() { if grep -E -e "$2" "$1"; then fail "found: $2"; fi; }

# --- artefacts

# programs: where the program for each platform is, named vm-VERSION-linux-PLATFORM.
programs() {
  if [ ! -e "$from/vm-$version-linux-arm64-musl" ]; then
    scripts/build --all --out="$scratch/programs" >&2 || exit
    for file in "$scratch/programs"/vm-*; do mv "$file" "${file/vm-linux/"vm-$version-linux"}"; done
    echo "$scratch/programs"
  else
    echo "$from"
  fi
}

# program PLATFORM: its path.
program() {
  if [ "$1" = "$(platform)" ] && [ -n "${VM_BINARY-}" ]; then
    echo "$VM_BINARY"
    return
  fi
  [ -s "$scratch/where" ] || programs >"$scratch/where"
  echo "$(<"$scratch/where")/vm-$version-linux-$1"
}

# put_program PLATFORM DIRECTORY: there, as vm: the program speaks of itself by the name under which it was started.
put_program() {
  mkdir -p "$2"
  cp "$(program "$1")" "$2/vm"
}

# artefact PLATFORM FILE: its path.
artefact() {
  local made=$scratch/release-$1
  if [ -e "$from/$2" ]; then
    echo "$from/$2"
    return
  fi
  [ -d "$made" ] || scripts/release --quick --only="$1" --out="$made" >&2 || exit
  echo "$made/$2"
}

# --- roots

root='' limit=240

# mirror: where this host's packages come from; none, and mmdebstrap knows one by itself.
mirror() {
  apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(CODENAME)' 'Created-By: Packages' |
    sed -n 's|^\([^ ]*debian/*\) main [a-z]*$|\1|p' | head -n 1
}

# base SUITE ARCHITECTURE [KIND PACKAGE...]: a new Debian as an archive, with package lists; at most a day old.
base() {
  local file=$top/.cache/prove/$1-$2${3+-$3}.tar new=$top/.cache/prove/${scratch##*.}.tar address words
  if [ -z "$(find "$file" -mtime -1 2>/dev/null)" ]; then
    mkdir -p "${file%/*}"
    address=$(mirror)
    words=$(IFS=, && echo "systemd${4+,${*:4}}")
    TMPDIR=$scratch timeout -k 5 1800 mmdebstrap --quiet --variant=minbase --arch="$2" --include="$words" \
      --skip=cleanup/apt/lists --dpkgopt=force-unsafe-io "$1" "$new" ${address:+"$address"}
    mv -f "$new" "$file"
  fi
}

# make_root SUITE ARCHITECTURE [KIND PACKAGE...]: unpacks it to $root and mounts there what programs expect. /mnt is for
# the checks.
make_root() {
  local device
  base "$@"
  mkdir "$root"
  tar -x --numeric-owner -f "$top/.cache/prove/$1-$2${3+-$3}.tar" -C "$root"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sys "$root/sys"
  # Not a bind mount of this checkout, so that nothing that removes or writes there does it here.
  mount -t tmpfs -o mode=755 dev "$root/dev"
  for device in null zero full random urandom tty; do cp -a "/dev/$device" "$root/dev/"; done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir -p "$root"/mnt/{home/.ssh,tmp,vm}
}

# new_root SUITE ARCHITECTURE [KIND PACKAGE...]: KIND names the archive that has these packages, too.
new_root() {
  root=$scratch/$system
  check "a new Debian $1 ($2${3+, $3})" make_root "$@"
}

# remove_root: what still runs there ends first.
remove_root() {
  local pid mounted
  [ -n "$root" ] && [ -d "$root" ] || return 0
  for pid in $(running); do kill -KILL "$pid" 2>/dev/null; done
  mapfile -t mounted < <(awk -v root="$root/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  [ "${#mounted[@]}" = 0 ] || umount -l "${mounted[@]}"
  rm -rf --one-file-system "$root"
  root=''
}

# running: ids of the processes whose root is $root.
running() {
  local directory
  for directory in /proc/[0-9]*; do
    [ "$(readlink "$directory/root")" != "$root" ] || echo "${directory#/proc/}"
  done
}

# quiet: nothing is left running in $root.
quiet() {
  local pid
  for pid in $(running); do tr '\0' ' ' <"/proc/$pid/cmdline" && fail " still runs"; done
}

# inside COMMAND...: in $root, with little in the environment, for at most $limit seconds.
inside() {
  timeout -k 5 "$limit" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/mnt/home TMPDIR=/mnt/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$(command -v chroot)" "$root" "$@"
}

# What packages that we depend on leave by Debian's custom (a group of qemu's), what dpkg, apt and others keep for
# themselves, and the place of the checks.
not_listed=(etc/{passwd,group,shadow,gshadow}{,-} mnt run var/cache var/lib/{apt,dpkg}
  var/log/{apt,dpkg.log,alternatives.log})

# listing: each other path of $root with type, rights, owner and target, and each file's checksum; nothing mounted.
listing() (
  prune=()
  for path in "${not_listed[@]}"; do prune+=(-o -path "./$path"); done
  cd "$root"
  {
    find . -xdev -mindepth 1 \( "${prune[@]:1}" \) -prune -o -printf '%P %y %m %U:%G %l\n'
    find . -xdev \( "${prune[@]:1}" \) -prune -o -type f -print0 | xargs -0 sha256sum | sed 's|^\(\S*\)  ./\(.*\)|\2 \1|'
  } | sort
)
