#!/bin/sh
# Installs what lies beside this script. Also over an older version, and it is what our packages are made by.
#   ./install.sh               installs
#   ./install.sh --uninstall   removes what was installed, and nothing else
#   ./install.sh --package     keeps no record, for --uninstall is a package manager's work then
# In the environment: PREFIX (/usr/local), SYSCONFDIR (/etc), DESTDIR (put before all, for a tree that is moved later).
set -eu
umask 022
prefix=${PREFIX:-/usr/local} etc=${SYSCONFDIR:-/etc} dest=${DESTDIR-}
record=$prefix/libexec/vm/installed

case $#,${1-} in
  0,) action=install ;;
  1,--package) action=package ;;
  1,--uninstall) action=uninstall ;;
  *)
    case ${1-} in -h | --help) ;; *) echo "install.sh: what is '$*'?" >&2 ;; esac
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    case ${1-} in -h | --help) exit ;; *) exit 64 ;; esac
    ;;
esac

checksum() { sha256sum <"$1" | cut -d' ' -f1; }
# recorded KIND [FILE]: the paths, or the text after that letter: d directory, f file, c checksum and settings.
recorded() { sed -n "s/^$1 //p" "${2:-$dest$record}" 2>/dev/null || :; }
# unchanged: the settings file is as it was installed.
unchanged() { [ -f "$dest$etc/vm.conf" ] && [ "$(recorded c)" = "$(checksum "$dest$etc/vm.conf") $etc/vm.conf" ]; }

if [ "$action" = uninstall ]; then
  if [ ! -f "$dest$record" ]; then
    echo "install.sh: no $dest$record: nothing was installed there" >&2
    exit 66
  fi
  if unchanged; then rm -f "$dest$etc/vm.conf"; elif [ -e "$dest$etc/vm.conf" ]; then echo "left alone: $dest$etc/vm.conf"; fi
  recorded f | while IFS= read -r path; do rm -f "$dest$path"; done
  directories=$(recorded d)
  rm -f "$dest$record"
  # The deepest first; what holds anything else stays.
  printf '%s\n' "$directories" | sort -r | while IFS= read -r path; do rmdir "$dest$path" 2>/dev/null || :; done
  echo "removed from $dest$prefix"
  exit
fi

here=$(cd "$(dirname "$0")" && pwd)
note=$(mktemp)
trap 'rm -f "$note"' EXIT
mkdir -p "$dest/"

# directory PATH: makes it and those above it, and notes each that was not there.
directory() {
  [ ! -d "$dest$1" ] || return 0
  directory "$(dirname "$1")"
  mkdir "$dest$1"
  echo "d $1" >>"$note"
}

# put FILE PATH: whole or, after an error, as it was. A running program's file may not be written over.
put() {
  directory "$(dirname "$2")"
  case $1 in
    */lib/systemd/*) sed "s|/usr/local/bin/|$prefix/bin/|" "$1" >"$dest$2.new" ;;
    *) cp "$1" "$dest$2.new" ;;
  esac
  if [ -x "$1" ]; then chmod 755 "$dest$2.new"; else chmod 644 "$dest$2.new"; fi
  mv -f "$dest$2.new" "$dest$2"
}

for file in $(cd "$here" && find bin lib libexec share -type f | sort); do
  put "$here/$file" "$prefix/$file"
  echo "f $prefix/$file" >>"$note"
done
# Settings are the administrator's, once they differ from the packaged ones.
if [ ! -e "$dest$etc/vm.conf" ] || unchanged; then
  put "$here/etc/vm.conf" "$etc/vm.conf"
  echo "c $(checksum "$dest$etc/vm.conf") $etc/vm.conf" >>"$note"
fi

[ "$action" = install ] || exit 0
# What an older version had, and this one has not.
recorded f | while IFS= read -r path; do
  grep -qxF "f $path" "$note" || rm -f "$dest$path"
done
recorded d | sed 's/^/d /' >>"$note"
sort -u "$note" >"$dest$record"
echo "installed: $dest$prefix/bin/vm"
