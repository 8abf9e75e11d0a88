# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by prove: its full Debian systems.

# The initrd of the kernel package is not needed, and takes a minute.
apt() { inside env INITRD=No apt-get -y -q --no-install-recommends -o DPkg::Use-Pty=0 "$@"; }
packages() { inside dpkg-query -W -f '${Package}\n' | sort; }
version_line() { [ "$("$@" --version)" = "vm $version" ]; }

# --- what is used everywhere; a COMMAND runs there what follows it

# guests: the files of the guests in the root; the program itself knows nothing of them.
guests() {
  "$BUN" -e '
    import { buildGuests } from "./test/guests/build.ts";
    const { installerIso, hangIso } = await buildGuests(".cache/guests");
    console.log(installerIso + "\n" + hangIso);' | while read -r file; do cp "$file" "$root/mnt/"; done
  [ -s "$root/mnt/installer.iso" ] && [ -s "$root/mnt/hang.iso" ]
}

# counted N: the guest says that it has booted N times from its disk.
counted() { tr -d '\r' <"$root$(readlink "$root/mnt/vm/.work")/console.log" | grep -qx "RUN $1" || fail "no RUN $1"; }

# cycle COMMAND...: a guest that counts its boots on its disk.
cycle() {
  local vm=("$@" --hostdir=/mnt/vm)
  "${vm[@]}" -m 64M -c 1 -p '' -D AHCI=16M create G /mnt/installer.iso
  "${vm[@]}" run
  "${vm[@]}" run
  counted 1
  "${vm[@]}" backup S0
  "${vm[@]}" run
  counted 2
  "${vm[@]}" restore S0
  "${vm[@]}" run
  counted 2
  "${vm[@]}" destroy
  [ ! -e "$root/mnt/vm/.work" ]
  [ -d "$root/mnt/vm/backups/S0" ]
  rm -r "$root/mnt/vm"
  mkdir "$root/mnt/vm"
}

# lacks COMMAND...: on a system without qemu, the missing packages are reported.
lacks() {
  ends 69 "$@" doctor >"$scratch/doctor" 2>&1
  holds "$scratch/doctor" 'cannot run VMs: missing .*qemu-system-.*qemu-img.*pigz'
  note "$(sed -n 's/^vm: //p' "$scratch/doctor")"
}

# advised: the packages for what is needed, from the last lines of doctor.
advised() { sed -n 's/^  install //p' "$scratch/doctor"; }

unproven=''
# satisfied COMMAND...: so is doctor. Where all is emulated there is no seccomp, which is no fault of the package's.
satisfied() {
  local status=0
  "$@" doctor >"$scratch/doctor" 2>&1 || status=$?
  if [ "$status" = 69 ] && [ "$system" = arm64-debian ]; then
    holds "$scratch/doctor" '^vm: cannot run VMs: missing sandbox$'
    unproven='; needed, but not to be had where all is emulated: sandbox'
  elif [ "$status" != 0 ]; then
    cat "$scratch/doctor"
    fail "status $status"
  fi
}

# complete COMMAND...: doctor finds all that is needed; what else is missing is called optional.
complete() {
  satisfied "$@"
  holds "$scratch/doctor" '^busybox +missing +optional .*install busybox-static' \
    '^kmod +missing +optional .*install kmod' '^kernel +missing +optional .*install linux-image-(amd64|arm64)' \
    '^restic +missing +optional .*install restic'
  note "missing, but optional:" \
    "$(awk '$2 == "missing" && $3 == "optional" { print $1 }' "$scratch/doctor" | paste -sd' ')$unproven"
}

# named THING...: the packages that doctor names for these.
named() {
  local thing
  for thing; do
    sed -n "s/^$thing .*; install //p" "$scratch/doctor" | grep . || fail "no package named for $thing"
  done
}

# all_named: whatever doctor names can be installed here.
all_named() {
  local names
  names=$(sed -n 's/^\S* .*; install //p' "$scratch/doctor" | tr ' ' '\n' | sort -u | paste -sd' ')
  # shellcheck disable=SC2086 # several words
  apt install -s $names
  note "$names"
}

help_pages() {
  version_line "$@"
  "$@" -h >"$scratch/out"
  holds "$scratch/out" '^usage: vm ' '^ +(@?create|create) '
}

# --- what a package brings

# manual PREFIX
manual() {
  gzip -dc "$root$1/share/man/man1/vm.1.gz" >"$scratch/page"
  holds "$scratch/page" '^\.TH "VM" "1"'
  inside env HOME=/nonexistent vm man | cmp - "$scratch/page"
}

# completions PREFIX ZSH: bash takes its one; the others are what the program prints.
completions() {
  inside bash -c "source $1/share/bash-completion/completions/vm && complete -p vm"
  inside vm completion zsh | cmp - "$root$2"
  inside vm completion fish | cmp - "$root$1/share/fish/vendor_completions.d/vm.fish"
}

# units PREFIX: systemd of that release accepts them without a warning.
units() {
  local manager unit paths
  for manager in system user; do
    paths=()
    for unit in backup@srv-web.service backup@srv-web.timer prune@srv-web.service prune@srv-web.timer; do
      paths+=("$1/lib/systemd/$manager/vm-$unit")
    done
    paths+=("$1/lib/systemd/$manager/vm@srv-web.service")
    inside env SYSTEMD_LOG_LEVEL=info XDG_RUNTIME_DIR=/run systemd-analyze --man=no "--$manager" verify "${paths[@]}" \
      >"$scratch/out" 2>&1 || { cat "$scratch/out" && false; }
    without "$scratch/out" 'vm[-@]'
  done
}

# program_of_release PLATFORM PACKAGE: what is installed is what was released beside it.
program_of_release() {
  local package
  package=$(artefact "$1" "$2")
  cmp "$root/usr/bin/vm" "${package%/*}/vm-$version-linux-$1"
}

# --- the main job

# rescue_needs: how that kernel's modules are packed, doctor can only say when it is there.
rescue_needs() {
  local names more
  mapfile -t names < <(named busybox kmod kernel)
  apt install "${names[@]}"
  satisfied inside vm
  mapfile -t more < <(sed -n 's/^kernel  *limited .*; install //p' "$scratch/doctor")
  [ "${#more[@]}" = 0 ] || apt install "${more[@]}"
  note "${names[*]} ${more[*]}"
}

# rescue ARCHITECTURE: made of that system's own kernel and programs.
rescue() {
  [ "$(inside uname -m)" = "$1" ]
  inside vm rescue build
  inside vm rescue list >"$scratch/out"
  holds "$scratch/out" "^rescue-$1 +own +[a-z0-9_ ]*$1[a-z0-9_ ]* usable "
  note "$(sed -n 's/^rescue-.* usable *//p' "$scratch/out")"
}

# The installed system whose root is to get a key: no more than one that fstab and os-release tell.
installed_disk() {
  local tree=$scratch/tree uuid=11111111-2222-4333-8444-555555555555
  local key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBs6vG7oCCsJb0kQO9QmX0aUu7Q7Wb1pRk0kV7xQ6m3Y prove'
  rm -rf "$tree"
  mkdir -p "$tree"/{etc,root,proc,sys,dev}
  echo 'NAME="Test"' >"$tree/etc/os-release"
  echo root:x:0:0:root:/root:/bin/sh >"$tree/etc/passwd"
  echo "UUID=$uuid / ext4 defaults 0 0" >"$tree/etc/fstab"
  rm -f "$root/mnt/disk.img"
  mke2fs -q -t ext4 -U "$uuid" -d "$tree" "$root/mnt/disk.img" 32M
  echo "$key" >"$root/mnt/home/.ssh/id_ed25519.pub"
}

job() { "$@" job add-ssh-keys >"$scratch/out"; }

# add_keys MNT COMMAND...: MNT is what COMMAND calls the root's /mnt.
add_keys() {
  local mnt=$1 vm=("${@:2}" "--hostdir=$1/job") work keys=/root/.ssh/authorized_keys
  installed_disk
  mkdir "$root/mnt/job"
  "${vm[@]}" -m 256M -p '' -D VIRT=32M create J "--from=$mnt/disk.img"
  job "${vm[@]}"
  holds "$scratch/out" '^added: ssh-ed25519 '
  work=$(readlink "$root/mnt/job/.work")
  work=$root${work#"$root"}
  qemu-img convert -O raw "$work/disk-0.img" "$scratch/disk.img"
  debugfs -R "cat $keys" "$scratch/disk.img" 2>/dev/null | cmp - "$root/mnt/home/.ssh/id_ed25519.pub"
  debugfs -R "stat $keys" "$scratch/disk.img" 2>/dev/null | grep -q 'Mode: *0600'
}

# patched LIBEXEC: what a distribution changes in its jobs is what runs.
patched() {
  [[ $(inside vm config LIBEXEC) == "LIBEXEC=$1 "* ]]
  echo 'echo "patched job"; cat "$INDIR/patched"' >>"$root$1/jobs/add-ssh-keys.job"
  echo 'echo "patched hook" >"$WORKDIR/.in/patched"' >>"$root$1/jobs/add-ssh-keys.pre"
  job inside vm --hostdir=/mnt/job
  holds "$scratch/out" '^already there: ' '^patched job' '^patched hook'
  inside vm --hostdir=/mnt/job destroy
}

# --- systems

# deb SUITE ARCHITECTURE PLATFORM
deb() {
  local file=vm_${version}_$2.deb
  listing >"$scratch/before"
  packages >"$scratch/packages"
  check "$file is there" put_artefact "$3" "$file"
  went || return
  check "apt-get would install it with all that is recommended, too" recommended "$file"
  check "apt-get install ./$file, with what it depends on" apt install "/mnt/$file"
  went || return
  check "its program is the one that was released" program_of_release "$3" "$file"
  check "vm -h, vm --version" help_pages inside vm
  check "vm doctor" complete inside vm
  check "all packages that vm doctor names are there" all_named
  check "the manual page" manual /usr
  check "completions" completions /usr /usr/share/zsh/vendor-completions/_vm
  check "systemd's units" units /usr
  result=0
}

recommended() {
  inside apt-get -s -q install "/mnt/$1" >"$scratch/out"
  holds "$scratch/out" '^Inst vm ' '^Inst openssh-client '
}

put_artefact() { cp "$(artefact "$1" "$2")" "$root/mnt/"; }

# purge: what apt has brought goes again, and the system is as it was.
purge() {
  local added paths
  mapfile -t paths < <(inside dpkg-query -L vm | grep -v '^/\.$')
  mapfile -t added < <(packages | comm -13 "$scratch/packages" -)
  echo "CORES=3" >>"$root/etc/vm.conf"
  apt purge vm
  for path in "${paths[@]}"; do
    [ ! -e "$root$path" ] || [ -d "$root$path" ] || fail "$path is still there"
    case $path in *vm*) [ ! -e "$root$path" ] || fail "$path is still there" ;; esac
  done
  mapfile -t added < <(printf '%s\n' "${added[@]}" | grep -vx vm)
  apt purge "${added[@]}"
  packages | cmp - "$scratch/packages"
}

unchanged() {
  listing >"$scratch/after"
  diff "$scratch/before" "$scratch/after"
  for file in passwd group; do without "$root/etc/$file" '\<vm\>'; done
  note "$(grep -cE ' [a-z] [0-7]+ [0-9]+:[0-9]+ ' "$scratch/after") paths (type, rights, owner, target, checksum);" \
    "not compared: ${not_listed[*]}"
}

prove_debian() {
  new_root "$1" amd64
  went || return
  deb "$1" amd64 x64
  went || return
  check "create, run, backup, restore, destroy" with_guests cycle inside vm
  check "the packages that vm doctor names for a rescue" rescue_needs
  check "vm rescue build" rescue x86_64
  check "vm job add-ssh-keys: the key is in the guest" add_keys /mnt inside vm
  check "a patched job in /usr/libexec/vm is what runs" patched /usr/libexec/vm
  check "nothing runs on" quiet
  check "apt-get purge, also of a changed /etc/vm.conf and of what it had brought" purge
  check "the system is as it was" unchanged
}

with_guests() {
  guests
  "$@"
}

prove_tarball() {
  local name=vm-$version-linux-x64
  new_root bookworm amd64
  went || return
  check "unpacked" unpack "$name"
  went || return
  check "vm doctor before anything is installed" lacks inside "/mnt/$name/bin/vm"
  check "the packages that it names" apt_advised
  went || return
  listing >"$scratch/before"
  check "install.sh" inside "/mnt/$name/install.sh"
  went || return
  check "vm -h, vm --version" help_pages inside vm
  check "vm doctor" complete inside vm
  check "the manual page" manual /usr/local
  check "completions" completions /usr/local /usr/local/share/zsh/site-functions/_vm
  check "systemd's units" units /usr/local
  check "jobs are those that were installed" libexec /usr/local/libexec/vm
  check "create, run, backup, restore, destroy" with_guests cycle inside vm
  check "installed once more, over it" inside "/mnt/$name/install.sh"
  check "install.sh --uninstall" inside "/mnt/$name/install.sh" --uninstall
  check "the system is as it was" unchanged
  check "nothing runs on" quiet
}

unpack() { tar -xf "$(artefact x64 "$1.tar.xz")" -C "$root/mnt" --no-same-owner; }
libexec() { [[ $(inside vm config LIBEXEC) == "LIBEXEC=$1 "* ]]; }

apt_advised() {
  local names
  mapfile -t names < <(advised)
  apt install "${names[@]}"
  note "${names[*]}"
}

# --- by ssh

port='' ssh_options=()
over() { timeout -k 5 240 ssh "${ssh_options[@]}" -p "$port" -T root@127.0.0.1 "$@" </dev/null; }
# What ssh is given becomes one line for the other side's shell.
over_vm() { over "./vm$(printf ' %q' "$@")"; }

sshd_there() {
  apt install openssh-server
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/key"
  mkdir -p "$root/root/.ssh" "$root/run/sshd"
  chmod 700 "$root/root/.ssh"
  cp "$scratch/key.pub" "$root/root/.ssh/authorized_keys"
}

# start_sshd: sets port.
start_sshd() {
  for port in 22022 22122 22222 22322 22422; do
    inside_long /usr/sbin/sshd -D -e -p "$port" -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \
      >"$scratch/sshd" 2>&1 &
    disown
    for _ in {1..50}; do
      ! grep -q 'Server listening' "$scratch/sshd" || return 0
      ! grep -q 'Cannot bind' "$scratch/sshd" || break
      sleep 0.1
    done
  done
}
inside_long() { exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null; }

copied() {
  timeout -k 5 120 scp -q "${ssh_options[@]}" -P "$port" "$(program x64)" root@127.0.0.1:vm
  over 'test ! -t 0 && test ! -t 1 && test ! -t 2'
}

apt_over() {
  local names
  mapfile -t names < <(advised)
  over DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install "${names[@]}"
  note "${names[*]}"
}

# in_the_way: ~/vm is where rescue profiles would be.
in_the_way() {
  over_vm config PROFILES >"$scratch/out"
  holds "$scratch/out" '^PROFILES=/root/.local/share/vm '
}

# outlives: a VM in the background does not hold the connection, and stays when that is over.
outlives() {
  over_vm --hostdir=/mnt/vm -m 64M -c 1 -p '' -D AHCI=16M create H /mnt/hang.iso
  over_vm --hostdir=/mnt/vm run --detach
  over_vm --hostdir=/mnt/vm status --json >"$scratch/out"
  holds "$scratch/out" '"state": *"running"'
  over_vm --hostdir=/mnt/vm stop --force --timeout=1 || :
  over_vm --hostdir=/mnt/vm status --json >"$scratch/out"
  without "$scratch/out" '"state": *"running"'
  over_vm --hostdir=/mnt/vm destroy
}

prove_ssh() {
  ssh_options=(-F none -i "$scratch/key" -o BatchMode=yes -o "UserKnownHostsFile=$scratch/known-$system"
    -o StrictHostKeyChecking=accept-new -o ConnectTimeout=10 -o LogLevel=ERROR)
  rm -f "$scratch/key" "$scratch/key.pub"
  new_root "$1" amd64
  went || return
  check "sshd is installed" sshd_there
  went || return
  start_sshd
  check "sshd listens" holds "$scratch/sshd" 'Server listening'
  went || return
  check "scp of the program; ssh gives no terminal" copied
  went || return
  check "vm -h, vm --version" help_pages over_vm
  check "vm doctor" lacks over_vm
  check "the packages that it names, by ssh" apt_over
  went || return
  check "vm doctor after that" complete over_vm
  check "with the program as ~/vm, profiles go elsewhere" in_the_way
  check "create, run, backup, restore, destroy" with_guests cycle over_vm
  check "run --detach outlives the connection" outlives
}
