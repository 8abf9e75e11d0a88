# shellcheck shell=bash disable=SC2154
# Sourced by release, whose variables it uses: $new, $temp, $version, $level. Each package is made by install.sh.

# Distributors set VM_MAINTAINER.
maintainer=${VM_MAINTAINER:-vm maintainers <maintainers@vm.invalid>}

# fill FILE [NAME=VALUE...]: print it with @NAME@ filled in.
fill() {
  local text pair
  text=$(<"$1")
  shift
  for pair in "VERSION=$version" "MAINTAINER=$maintainer" "$@"; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
  printf '%s\n' "$text"
}

# installed TREE ROOT: what install.sh makes of it.
installed() { DESTDIR=$2 PREFIX=/usr SYSCONFDIR=/etc "$1/install.sh" --package; }

# archive TREE FILE
archive() {
  tar -c --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
    -C "${1%/*}" "${1##*/}" | xz "-$level" -T1 >"$2"
}

# What runs guests of the host's own architecture, by Debian's names. Those of arm64 boot by UEFI only.
declare -A deb_depends=(
  [amd64]='qemu-system-x86 (>= 1:7.0) | qemu-system (>= 1:7.0)'
  [arm64]='qemu-system-arm (>= 1:7.0) | qemu-system (>= 1:7.0), qemu-efi-aarch64'
)
declare -A deb_recommends=([amd64]='ovmf, ' [arm64]='')

# deb TREE ARCHITECTURE
deb() {
  local root=$temp/deb-$2 doc=$temp/deb-$2/usr/share/doc/vm
  installed "$1" "$root"
  # Debian's own places.
  mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
  rm "$doc/LICENSE"
  fill scripts/packaging/deb/copyright YEAR="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y)" >"$doc/copyright"
  fill scripts/packaging/deb/changelog DATE="$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
  install -D -m 644 scripts/packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/vm"
  mkdir "$root/DEBIAN"
  echo /etc/vm.conf >"$root/DEBIAN/conffiles"
  (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
  fill scripts/packaging/deb/control ARCH="$2" DEPENDS="${deb_depends[$2]}" RECOMMENDS="${deb_recommends[$2]}" \
    SIZE="$(du -k --apparent-size -s --exclude=DEBIAN "$root" | cut -f1)" >"$root/DEBIAN/control"
  dpkg-deb --root-owner-group -Zxz "-z$level" --threads-max=1 -b "$root" "$new/vm_${version}_$2.deb" >/dev/null
  rm -rf "$root"
}

# rpm_package TREE ARCHITECTURE
rpm_package() {
  local top=$temp/rpm-$2
  mkdir -p "$top"
  fill scripts/packaging/rpm/vm.spec DATE="$(date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" >"$top/vm.spec"
  rpmbuild --quiet -bb --nodeps --target "$2-linux" --define "_topdir $top" --define "tree $1" \
    --define "_binary_payload w${level/#0/1}.xzdio" "$top/vm.spec" >"$top/log" 2>&1 || { cat "$top/log" >&2 && return 1; }
  mv "$top/RPMS/$2"/*.rpm "$new/"
  rm -rf "$top"
}

# pkgbuild: for makepkg, beside the archives.
pkgbuild() {
  fill scripts/packaging/arch/PKGBUILD \
    X64="$(sha256sum <"$new/vm-$version-linux-x64.tar.xz" | cut -d' ' -f1)" \
    ARM64="$(sha256sum <"$new/vm-$version-linux-arm64.tar.xz" | cut -d' ' -f1)" >"$new/PKGBUILD"
}
