# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by prove: its systems that are little more than the program.

# --- empty: a directory with the program and the files of the C library that it needs

prove_empty() {
  root=$scratch/empty
  check "the program and what ldd names" empty_root "$(program "$(platform)")"
  went || return
  check "vm -h, vm --version, vm doctor" empty_works
  mount -t tmpfs -o size=64k dev "$root/dev" && cp -a /dev/null "$root/dev/"
  check "the same with /dev/null" empty_works
  umount "$root/dev"
  rmdir "$root/dev"
  check "without /dev" empty_works
  rmdir "$root/tmp"
  check "without /tmp, too: doctor says so" empty_works ', tmpdir'
  check "without a HOME, PATH or anything in the environment" bare_environment
  check "the directory is as it was" empty_unchanged
  umount "$root/proc"
  check "without /proc Bun aborts at once, before the program begins" no_proc
}

empty_root() {
  local file
  mkdir -p "$root"/{proc,dev,tmp}
  for file in $(ldd "$1" | grep -o '/[^ ]*'); do install -D "$file" "$root$file"; done
  install "$1" "$root/vm"
  mount -t proc proc "$root/proc"
  note "$(cd "$root" && find lib* -type f -printf '%f\n' | sort | paste -sd' ')"
}

# at_home COMMAND...: there, with a HOME and a PATH.
at_home() { bare_env=(HOME=/root PATH=/usr/bin:/bin) && bare "$@"; }

# empty_works [MISSING]: and not more than that is.
empty_works() {
  help_pages at_home
  lacks at_home
  holds "$scratch/doctor" "cannot run VMs: missing qemu-system-[a-z0-9_]*, qemu-img, pigz, coreutils${1-}\$" \
    '^bash +missing +optional' '^kernel +missing +optional' 'qemu-utils \(Debian, Ubuntu\)'
}

bare_env=()
bare() { timeout -k 5 60 env -i "${bare_env[@]}" "$(command -v chroot)" "$root" /vm "$@"; }
bare_environment() {
  help_pages bare
  lacks bare
  [[ $(bare config CORES) == CORES=2\ * ]]
}

empty_unchanged() {
  local left
  left=$(cd "$root" && find . -xdev -mindepth 1 ! -path './lib*' ! -path ./vm ! -path ./proc)
  [ -z "$left" ] || fail "new there: $left"
}

no_proc() {
  local status=0
  bare --version >"$scratch/out" 2>&1 || status=$?
  case $status in 124 | 137) fail "status $status" ;; esac
  # Should it work one day, so much the better.
  [ "$status" = 0 ] || grep -q '^Bun v' "$scratch/out"
  note "status $status"
}

# --- musl: no C++ library for musl can be had here, so these are only read

prove_musl() {
  check "the headers of x64-musl, which cannot be run here" elf_of x64-musl X86-64 /lib/ld-musl-x86_64.so.1
  check "the headers of arm64-musl, which cannot be run here" elf_of arm64-musl AArch64 /lib/ld-musl-aarch64.so.1
}

# elf_of PLATFORM MACHINE INTERPRETER
elf_of() {
  local file needed
  file=$(program "$1")
  LC_ALL=C readelf -hld "$file" >"$scratch/out"
  holds "$scratch/out" "Machine: .*$2" "interpreter: $3\]"
  needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$scratch/out" | sort | paste -sd' ')
  case $needed in *libc.musl-*libstdc++.so.6*) ;; *) fail "it needs $needed" ;; esac
  LC_ALL=C readelf -V "$file" >"$scratch/out"
  without "$scratch/out" GLIBC_
  note "$2, $3, needs $needed"
}

# --- start

# times COMMAND...: 30 times, in microseconds, sorted.
times() {
  local start
  for _ in {1..30}; do
    start=${EPOCHREALTIME/[.,]/}
    "$@" >/dev/null 2>&1
    echo $((${EPOCHREALTIME/[.,]/} - start))
  done | sort -n
}
median() { times "$@" | sed -n 15p; }
ms() { printf '%d.%d ms' $(($1 / 1000)) $(($1 % 1000 / 100)); }

prove_start() { check "vm --version, the median of 30" start_time; }

start_time() {
  local vm bash bound
  vm=$(median "$(program "$(platform)")" --version)
  bash=$(median bash -c true)
  bound=$(((bash + 20000) * 3 / 2))
  note "$(ms "$vm"), bash -c true $(ms "$bash"); 1.5 × (bash + 20 ms) is $(ms "$bound"):" \
    "$([ "$vm" -le "$bound" ] && echo within || echo above)"
}

# --- arm64

# The program's own, by qemu without any help of the kernel: only its C library is unpacked.
prove_arm64_program() {
  root=$scratch/$system
  check "the C library of Debian bookworm (arm64)" arm64_library
  went || return
  check "the program for arm64" put_program arm64 "$scratch/arm64"
  went || return
  check "vm -h, vm --version" help_pages emulated "$scratch/arm64/vm"
  check "it takes its host for one of aarch64" emulated_host
}

arm64_library() {
  local address
  address=$(mirror)
  TMPDIR=$scratch timeout -k 5 300 mmdebstrap --quiet --variant=extract --arch=arm64 --include=libc6 \
    bookworm "$root" ${address:+"$address"}
}

emulated() { timeout -k 5 120 qemu-aarch64-static -L "$root" "$@"; }
emulated_host() {
  emulated "$scratch/arm64/vm" config QEMUARCH >"$scratch/out"
  holds "$scratch/out" '^QEMUARCH=aarch64 '
}

prove_arm64_debian() {
  limit=420
  if ! arch-test arm64 >/dev/null 2>&1; then
    echo "-- arm64-debian: left out: this kernel has no binfmt_misc, so nothing emulated can start another program"
    return
  fi
  new_root bookworm arm64
  went || return
  check "the program for arm64" put_program arm64 "$root/mnt/bin"
  went || return
  check "vm doctor before anything is installed" lacks inside /mnt/bin/vm
  check "it names what an aarch64 host needs" arm64_names
  check "start, emulated, the median of 30" arm64_start
  deb bookworm arm64 arm64
  went || return
  check "guests are aarch64 by default, and boot by UEFI" arm64_defaults
  check "the packages that vm doctor names for a rescue" rescue_needs
  check "vm rescue build" rescue aarch64
  check "vm job add-ssh-keys of this host, by that rescue: the key is in the guest" arm64_keys
  check "vm doctor with a rescue" arm64_doctor
  check "apt-get purge, also of a changed /etc/vm.conf and of what it had brought" purge
  check "the system is as it was" unchanged
}

arm64_names() {
  holds "$scratch/doctor" '^qemu-system-aarch64 +missing +needed .*install qemu-system-arm$' \
    '^qemu-system-x86_64 +missing +optional' '^uefi-aarch64 +missing +needed .*install qemu-efi-aarch64$' \
    '^kernel +missing +optional .*install linux-image-arm64$'
}

arm64_start() {
  local vm bash
  vm=$(median inside /mnt/bin/vm --version)
  bash=$(median inside bash -c true)
  note "vm --version $(ms "$vm"), bash -c true $(ms "$bash")"
}

arm64_defaults() {
  inside vm config QEMUARCH >"$scratch/out"
  holds "$scratch/out" '^QEMUARCH=aarch64 '
  inside vm --hostdir=/mnt/vm -m 64M -p '' create G
  inside vm --hostdir=/mnt/vm status --json >"$scratch/out"
  holds "$scratch/out" '"arch": *"aarch64"' '"uefi": *true'
  inside vm --hostdir=/mnt/vm destroy
}

# on_this_host WORD...: this host's program and qemu, with what was made in the root.
on_this_host() {
  timeout -k 5 "$limit" env HOME="$root/mnt/home" TMPDIR="$root/mnt/tmp" "$scratch/host/vm" "$@"
}

arm64_keys() {
  put_program "$(platform)" "$scratch/host"
  add_keys "$root/mnt" on_this_host -a aarch64
}

arm64_doctor() {
  satisfied inside vm
  holds "$scratch/doctor" '^rescue:rescue-aarch64 +ok' '^kernel +ok' '^qemu-system-aarch64 +ok'
}
