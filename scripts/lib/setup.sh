# shellcheck shell=bash
# Sourced by the other scripts: finds what they need and installs only what is missing.
# Every function returns 69 when something needed cannot be had; the caller runs under `set -e`.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
os_release=/etc/os-release

# One line for each thing needed: its group, the thing, and the packages that bring it.
# A thing is a command, or one of the test functions below. Packages: "a,b" means both, "-" none is needed.
# Debian and Ubuntu use the same names; a name that their release does not have is left out.
needs_table() {
  cat <<'TABLE'
# group thing                  apt                         alt               dnf                     zypper             pacman
build   npm                    nodejs,npm                  node,npm          nodejs,npm              nodejs,npm         nodejs,npm
run     qemu-system-x86_64     qemu-system-x86             qemu-system-x86   qemu-system-x86         qemu-x86           qemu-system-x86
run     qemu_with_spice        qemu-system-modules-spice   qemu-system-x86   qemu-system-x86         qemu-spice         qemu-ui-spice-core,qemu-chardev-spice
run     qemu-img               qemu-utils                  qemu-img          qemu-img                qemu-img           qemu-img
run     ovmf_firmware          ovmf                        edk2-ovmf         edk2-ovmf               qemu-ovmf-x86_64   edk2-ovmf
run     pigz                   pigz                        pigz              pigz                    pigz               pigz
run     setpriv                util-linux                  util-linux        util-linux              util-linux         util-linux
demo    demo_iso               grub-rescue-pc              ipxe-bootimgs     ipxe-bootimgs-x86       ipxe-bootimgs      ipxe
demo    mke2fs                 e2fsprogs                   e2fsprogs         e2fsprogs               e2fsprogs          e2fsprogs
debian  busybox                busybox-static              busybox           busybox                 busybox-static     busybox
debian  kmod                   kmod                        kmod              kmod                    kmod               kmod
debian  rescue_kernel          linux-image-amd64           kernel-image-std-def  kernel               kernel-default     linux
debian  sfdisk                 fdisk                       util-linux        util-linux              util-linux         util-linux
debian  mkfs.vfat              dosfstools                  dosfstools        dosfstools              dosfstools         dosfstools
debian  mmdebstrap             mmdebstrap                  -                 -                       -                  -
debian  ssh-keygen             openssh-client              openssh-clients   openssh-clients         openssh-clients    openssh
lint    shellcheck             shellcheck                  shellcheck        ShellCheck              ShellCheck         shellcheck
bench   gnu_time               time                        time              time                    time               time
bench   cc                     gcc,libc6-dev              gcc,glibc-devel-static  gcc,glibc-static  gcc,glibc-devel-static  gcc
bench   borg                   borgbackup                  borg              borgbackup              borgbackup         borg
picture script                 bsdutils                    util-linux        util-linux-script       util-linux         util-linux
check   gnu_time               time                        time              time                    time               time
check   qemu-system-aarch64    qemu-system-arm             qemu-system-aarch64  qemu-system-aarch64    qemu-arm           qemu-system-aarch64
check   qemu-system-arm        qemu-system-arm             qemu-system-arm   qemu-system-arm         qemu-arm           qemu-system-arm
check   qemu-system-ppc64      qemu-system-ppc             qemu-system-ppc   qemu-system-ppc         qemu-ppc           qemu-system-ppc
check   qemu-system-riscv64    qemu-system-riscv,qemu-system-misc  qemu-system-riscv  qemu-system-riscv  qemu-extra         qemu-system-riscv
check   aavmf_firmware         qemu-efi-aarch64            edk2-aarch64      edk2-aarch64            qemu-uefi-aarch64  edk2-aarch64
check   aavmf32_firmware       qemu-efi-arm                -                 edk2-arm                qemu-uefi-aarch32  edk2-arm
check   ovmf32_firmware        ovmf-ia32                   edk2-ovmf-ia32    edk2-ovmf-ia32          qemu-ovmf-ia32     edk2-ovmf
check   u_boot_riscv64         u-boot-qemu                 -                 uboot-images-riscv64    -                  -
check   swtpm                  swtpm                       swtpm             swtpm                   swtpm              swtpm
check   tpm2                   tpm2-tools                  tpm2-tools        tpm2-tools              tpm2.0-tools       tpm2-tools
check   strace                 strace                      strace            strace                  strace             strace
check   nasm                   nasm                        nasm              nasm                    nasm               nasm
check   xorriso                xorriso                     xorriso           xorriso                 xorriso            libisoburn
check   mcopy                  mtools                      mtools            mtools                  mtools             mtools
check   isolinux_image         isolinux                    syslinux          syslinux-nonlinux       syslinux           syslinux
check   isolinux_modules       syslinux-common             -                 syslinux-nonlinux       syslinux           syslinux
check   grub_for_efi           grub-efi-amd64-bin          grub-efi          grub2-efi-x64-modules   grub2-x86_64-efi   grub
check   grub_for_bios          grub-pc-bin                 grub-pc           grub2-pc-modules        grub2-i386-pc      grub
check   grub_mkrescue          grub-common                 grub-common       grub2-tools-extra       grub2              grub
check   static_busybox         busybox-static              busybox           busybox                 busybox-static     busybox
check   cpio                   cpio                        cpio              cpio                    cpio               cpio
check   pgrep                  procps                      procps            procps-ng               procps             procps-ng
check   zstd                   zstd                        zstd              zstd                    zstd               zstd
check   xmllint                libxml2-utils               xml-utils         libxml2                 libxml2-tools      libxml2
check   jq                     jq                          jq                jq                      jq                 jq
check   dnsmasq                dnsmasq-base                dnsmasq           dnsmasq                 dnsmasq            dnsmasq
check   passt                  passt                       passt             passt                   passt              passt
check   nft                    nftables                    nftables          nftables                nftables           nftables
check   ip                     iproute2                    iproute2          iproute                 iproute2           iproute2
run     bwrap                  bubblewrap                  bubblewrap        bubblewrap              bubblewrap             bubblewrap
check   restic                 restic                      restic            restic                  restic             restic
check   fusermount3            fuse3                       fuse3             fuse3                   fuse3              fuse3
check   sshfs                  sshfs                       fuse-sshfs        fuse-sshfs              sshfs              sshfs
check   rclone                 rclone                      rclone            rclone                  rclone             rclone
check   qemu-io                qemu-utils                  qemu-img          qemu-img                qemu-img           qemu-img
check   flock                  util-linux                  util-linux        util-linux-core         util-linux         util-linux
check   systemd-analyze        systemd                     systemd-analyze   systemd                 systemd            systemd
check   mkfs.ext4              e2fsprogs                   e2fsprogs         e2fsprogs               e2fsprogs          e2fsprogs
check   mkfs.xfs               xfsprogs                    xfsprogs          xfsprogs                xfsprogs           xfsprogs
check   mkfs.btrfs             btrfs-progs                 btrfs-progs       btrfs-progs             btrfsprogs         btrfs-progs
check   lvm                    lvm2                        lvm2              lvm2                    lvm2               lvm2
check   mdadm                  mdadm                       mdadm             mdadm                   mdadm              mdadm
check   cryptsetup             cryptsetup-bin              cryptsetup        cryptsetup              cryptsetup         cryptsetup
check   sshd                   openssh-server              openssh-server    openssh-server          openssh-server     openssh
check   qemu-ga                qemu-guest-agent            qemu-guest-agent  qemu-guest-agent        qemu-guest-agent   qemu-guest-agent
check   xz                     xz-utils                    xz                xz                      xz                 xz
check   script                 bsdutils                    util-linux        util-linux-script       util-linux         util-linux
check   openssl                openssl                     openssl           openssl                 openssl            openssl
check   Xvfb                   xvfb                        xorg-xvfb         xorg-x11-server-Xvfb    xorg-x11-server-Xvfb  xorg-server-xvfb
check   remote-viewer          virt-viewer                 virt-viewer       virt-viewer             virt-viewer        virt-viewer
check   spicy-screenshot       spice-client-gtk            -                 spice-gtk-tools         spice-gtk          spice-gtk
check   vncsnapshot            vncsnapshot                 -                 -                       -                  -
check   mksquashfs             squashfs-tools              squashfs-tools    squashfs-tools          squashfs           squashfs-tools
check   zsh                    zsh                         zsh               zsh                     zsh                zsh
check   fish                   fish                        fish              fish                    fish               fish
check   bash_completion        bash-completion             bash-completion   bash-completion         bash-completion    bash-completion
check   man                    man-db                      man-db            man-db                  man                man-db
check   mandoc                 mandoc                      mandoc            mandoc                  -                  -
check   dpkg-deb               dpkg                        dpkg              dpkg                    dpkg               dpkg
check   lintian                lintian                     -                 -                       -                  -
check   rpmbuild               rpm                         rpm-build         rpm-build               rpm-build          rpm-tools
check   rpmlint                rpmlint                     rpmlint           rpmlint                 rpmlint            -
check   readelf                binutils                    binutils          binutils                binutils           binutils
check   qemu-aarch64-static    qemu-user-static            -                 -                       -                  -
prove   arch-test              arch-test                   -                 -                       -                  -
prove   debugfs                e2fsprogs                   e2fsprogs         e2fsprogs               e2fsprogs          e2fsprogs
release dpkg-deb               dpkg                        dpkg              dpkg                    dpkg               dpkg
release rpmbuild               rpm                         rpm-build         rpm-build               rpm-build          rpm-tools
release xz                     xz-utils                    xz                xz                      xz                 xz
TABLE
}

# --- the things that are not simply commands

# first FILE...: print the first that exists, or fail.
first() {
  local file
  for file; do
    if [ -e "$file" ]; then
      printf '%s\n' "$file"
      return
    fi
  done
  return 1
}
# SPICE is in a package of its own in newer releases, so ask qemu itself (its status is 1 either way).
qemu_with_spice() { [[ $(qemu-system-x86_64 -spice help 2>/dev/null) == 'spice options'* ]]; }
ovmf_firmware() {
  first /usr/share/{OVMF,edk2/ovmf,edk2/x64}/OVMF_CODE*.fd /usr/share/qemu/ovmf-x86_64-code.bin
}
aavmf_firmware() { first /usr/share/{AAVMF/AAVMF_CODE,edk2/aarch64/QEMU_CODE}.fd /usr/share/edk2/aarch64/QEMU_EFI-pflash.raw; }
aavmf32_firmware() { first /usr/share/{AAVMF/AAVMF32_CODE,edk2/arm/QEMU_CODE}.fd /usr/share/edk2/arm/QEMU_EFI-pflash.raw; }
ovmf32_firmware() { first /usr/share/{OVMF/OVMF32_CODE_4M.secboot,edk2/ovmf-ia32/OVMF_CODE,edk2/ia32/OVMF_CODE.4m}.fd; }
u_boot_riscv64() { first /usr/{lib/u-boot,share/uboot}/qemu-riscv64_smode/u-boot.bin; }
# A small ISO that any PC firmware boots: grub's rescue disc, elsewhere iPXE's.
demo_iso() {
  first /usr/lib/grub-rescue/grub-rescue-cdrom.iso /usr/share/ipxe/ipxe.iso /usr/share/ipxe/*/ipxe.iso
}
# bash has a keyword of this name.
gnu_time() { first /usr/bin/time; }
bash_completion() { first /usr/share/bash-completion/bash_completion; }
isolinux_image() { first /usr/{lib/ISOLINUX,lib/syslinux,lib/syslinux/bios,share/syslinux}/isolinux.bin; }
isolinux_modules() { first /usr/{lib/syslinux/modules/bios,lib/syslinux/bios,share/syslinux}/ldlinux.c32; }
grub_for_efi() { first /usr/{lib/grub,share/grub2}/x86_64-efi/moddep.lst; }
grub_for_bios() { first /usr/{lib/grub,share/grub2}/i386-pc/moddep.lst; }
grub_mkrescue() { command -v grub-mkrescue || command -v grub2-mkrescue; }
# Readable kernels that have their modules; the rescue of the tests is built from one.
rescue_kernel() { first /boot/vmlinuz-* /usr/lib/modules/*/vmlinuz; }
# Debian's plain busybox needs the C library, which our initramfs does not have.
static_busybox() { command -v busybox && ! ldd "$(command -v busybox)"; }

# have THING: is it installed? Searches sbin directories as well.
have() {
  if declare -F "$1" >/dev/null; then
    "$1" >/dev/null 2>&1
  else
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null
  fi
}

# --- packages

# Print apt, alt, dnf, zypper or pacman; fail where there is none of them.
# ALT's apt-get handles rpm packages with names of their own, and Fedora carries an apt-get too,
# so the system's own name decides first.
package_manager() {
  local ids manager
  # shellcheck source=/dev/null
  ids=$(. "$os_release" 2>/dev/null && echo " ${ID-} ${ID_LIKE-} ")
  case $ids in
    *altlinux*) echo alt ;;
    *' debian '* | *' ubuntu '*) echo apt ;;
    *' fedora '* | *' rhel '* | *' centos '*) echo dnf ;;
    *suse*) echo zypper ;;
    *' arch '*) echo pacman ;;
    *)
      if [ -e /etc/altlinux-release ]; then
        echo alt
        return
      fi
      for manager in apt-get dnf zypper pacman; do
        if command -v "$manager" >/dev/null; then
          echo "${manager%-get}"
          return
        fi
      done
      return 1
      ;;
  esac
}

# missing COLUMN GROUP|THING...: print "thing packages" for each of them that is not here.
missing() {
  local column=$1 row
  shift
  while read -r -a row; do
    case " $* " in *" ${row[0]} "* | *" ${row[1]} "*) ;; *) continue ;; esac
    if [ "${row[column]}" != - ] && ! have "${row[1]}"; then
      echo "${row[1]} ${row[column]}"
    fi
  done < <(needs_table)
}

# known PACKAGE...: print those the apt lists name.
known() {
  local package
  for package; do
    [ -z "$(apt-cache show "$package" 2>/dev/null)" ] || echo "$package"
  done
}

# logged COMMAND...: run it, its output in .cache/setup.log; show the end of that when it fails.
logged() {
  mkdir -p "$top/.cache"
  "$@" >"$top/.cache/setup.log" 2>&1 </dev/null && return
  tail -n 20 "$top/.cache/setup.log" >&2
  return 1
}

# need GROUP|THING...: install what is missing of them (groups: build, run, demo, debian, lint, check, picture, prove, release).
need() {
  local manager column refresh=() install=() as_root=() lacking packages=() names=()
  manager=$(package_manager) || manager=
  case $manager in
    apt) column=2 ;; alt) column=3 ;; dnf) column=4 ;; zypper) column=5 ;; pacman) column=6 ;;
    *) column=1 ;; # names the thing itself
  esac
  lacking=$(missing "$column" "$@")
  [ -n "$lacking" ] || return 0
  mapfile -t packages < <(cut -d' ' -f2 <<<"$lacking" | tr , '\n' | awk '!seen[$0]++')

  # Without recommended packages: these bring desktops along.
  case $manager in
    apt)
      refresh=(apt-get update)
      install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300)
      ;;
    alt) refresh=(apt-get update) install=(apt-get install -y) ;;
    dnf) install=(dnf install -y --setopt=install_weak_deps=False) ;;
    zypper) install=(zypper --non-interactive install --no-recommends) ;;
    pacman) install=(pacman -S --noconfirm --needed) ;;
    *)
      echo "setup: no package manager known here; please install: ${packages[*]}" >&2
      return 69
      ;;
  esac
  # A new container has no lists at all. Elsewhere pacman's are left alone: new lists without a full upgrade break Arch.
  if [ "$manager" = pacman ] && ! first /var/lib/pacman/sync/*.db >/dev/null; then refresh=(pacman -Sy); fi

  if [ "$EUID" != 0 ]; then
    as_root=(sudo)
    if ! command -v sudo >/dev/null; then
      [[ $manager != @(apt|alt) ]] || mapfile -t names < <(known "${packages[@]}")
      [ ${#names[@]} = 0 ] || packages=("${names[@]}")
      echo "setup: missing, and only root can install it: $(cut -d' ' -f1 <<<"$lacking" | paste -sd' ')" >&2
      echo "setup: as root, run: ${refresh[*]:+${refresh[*]} && }${install[*]} ${packages[*]}" >&2
      return 69
    fi
  fi
  if [ ${#refresh[@]} -gt 0 ]; then
    logged "${as_root[@]}" "${refresh[@]}" || echo "setup: ${refresh[*]} failed; going on with the old lists" >&2
    [ "$manager" = pacman ] || mapfile -t packages < <(known "${packages[@]}")
  fi
  if [ ${#packages[@]} -gt 0 ]; then
    if ! logged "${as_root[@]}" "${install[@]}" "${packages[@]}"; then
      echo "setup: failed: ${as_root[*]:+sudo }${install[*]} ${packages[*]}" >&2
      return 69
    fi
    echo "installed: ${packages[*]}" >&2
  fi
  lacking=$(missing "$column" "$@" | cut -d' ' -f1 | paste -sd' ')
  [ -z "$lacking" ] || { echo "setup: still missing: $lacking" >&2 && return 69; }
}

# --- bun

# All that a release is built for.
# shellcheck disable=SC2034 # build and release use it
platforms=(x64 x64-baseline x64-musl x64-musl-baseline arm64 arm64-musl)

# Print this machine's name among these; "baseline" is never needed to run here.
platform() {
  local cpu libc=
  case $(uname -m) in
    x86_64) cpu=x64 ;;
    aarch64) cpu=arm64 ;;
    *)
      echo "setup: bun does not run on $(uname -m)" >&2
      return 69
      ;;
  esac
  getconf GNU_LIBC_VERSION >/dev/null 2>&1 || libc=-musl
  echo "$cpu$libc"
}

# The npm package that holds bun's program for a platform, and the checksum bun.lock has for it.
# For processors without AVX2 bun used to have packages of their own. By now their program is the same as the plain
# one's, which looks at the processor itself; build compares them, so that a change does not go unnoticed.
bun_package() { echo "@oven/bun-linux-${1/arm64/aarch64}"; }
bun_checksum() { sed -n "s|^ *\"$(bun_package "$1")\": .*\"\(sha512-[^\"]*\)\".*|\1|p" "$top/bun.lock"; }

# is_bun FILE VERSION: it runs here and is exactly that.
is_bun() { [ -x "$1" ] && [ "$("$1" --version 2>/dev/null)" = "$2" ]; }

# fetch_bun VERSION DIRECTORY: get bun from the npm registry.
# The platform's package holds the program itself, so no install script need run: npm 12 refuses
# those, npm 11 warns, and npm 9 would take both C libraries' builds along with the package "bun".
fetch_bun() {
  local version=$1 directory=$2 package checksum
  need npm || return
  package=$(platform) || return
  checksum=$(bun_checksum "$package")
  package=$(bun_package "$package")
  rm -rf "$directory"
  mkdir -p "$directory"
  if ! logged npm install --prefix "$directory" --ignore-scripts --no-save --no-package-lock --no-audit --no-fund \
    "$package@$version"; then
    echo "setup: npm could not fetch $package@$version" >&2
  elif ! grep -qsF -- "\"$checksum\"" "$directory/node_modules/.package-lock.json" \
    "$directory/node_modules/$package/package.json"; then # npm 6 writes it here
    echo "setup: $package@$version is not what bun.lock promises" >&2
  elif ! is_bun "$directory/node_modules/$package/bin/bun" "$version"; then
    echo "setup: $package@$version does not run here" >&2
  else
    ln -s "node_modules/$package/bin/bun" "$directory/bun"
    return
  fi
  rm -rf "$directory"
  return 69
}

# bun_setup: set BUN to a bun of the pinned version and make node_modules what bun.lock says.
bun_setup() {
  local version here state own=$top/node_modules/.bin/bun stamp=$top/node_modules/.installed
  version=$(sed -n 's/^ *"bun": "\([0-9.]*\)".*/\1/p' "$top/package.json")
  here=$(platform) || return
  if is_bun "$own" "$version"; then
    BUN=$own
  else
    rm -f "$stamp" # made on another machine, or never finished
    BUN=$(command -v bun) || BUN=
    if ! is_bun "$BUN" "$version"; then
      BUN=$top/.cache/bun-$version/bun
      is_bun "$BUN" "$version" || fetch_bun "$version" "${BUN%/bun}" || return
    fi
  fi
  # package.json, too: a change there that is not in bun.lock has to fail. bun.lock does not change with a patch.
  state=$(echo "$here" && cat "$top/bun.lock" "$top/package.json" "$top"/scripts/packaging/*.patch)
  if [ "$state" != "$(cat "$stamp" 2>/dev/null)" ]; then
    if ! logged "$BUN" install --cwd "$top" --frozen-lockfile; then
      echo "setup: bun install failed" >&2
      return 69
    fi
    echo "$state" >"$stamp"
    if is_bun "$own" "$version"; then BUN=$own; fi
  fi
}
