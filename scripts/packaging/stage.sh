# shellcheck shell=bash
# Sourced by release: lays out what install.sh installs. This is the one list of what a package holds.

# put FILE DIRECTORY [MODE]
put() { install -D -m "${3-644}" -t "$2" "$1"; }

# stage_common PROGRAM SBOM TREE: all but the program itself, which is asked for what it knows best. It has to run here,
# and to be named "vm", for that name stands in what it prints.
stage_common() {
  local program=$1 sbom=$2 tree=$3 file manager
  local doc=$tree/share/doc/vm man=$tree/share/man/man1/vm.1
  mkdir -p "$doc/examples" "${man%/*}" "$tree"/{etc,share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}}
  # Without user settings.
  env -i PATH="$PATH" HOME=/nonexistent "$program" man >"$man" </dev/null
  gzip -9n "$man"
  "$program" completion bash >"$tree/share/bash-completion/completions/vm"
  "$program" completion zsh >"$tree/share/zsh/site-functions/_vm"
  "$program" completion fish >"$tree/share/fish/vendor_completions.d/vm.fish"
  "$program" --licenses >"$doc/licenses.txt"
  "$program" config --example >"$tree/etc/vm.conf" 2>/dev/null
  cp "$tree/etc/vm.conf" "$doc/examples/vm.conf"
  put LICENSE "$doc"
  put README.md "$doc"
  cp "$sbom" "$doc/vm.cdx.json"
  # The binary has the same, but these can be patched: LIBEXEC.
  install -D -m 755 scripts/rescue/runner "$tree/libexec/vm/rescue-stage3"
  for file in jobs/*.job jobs/*.pre jobs/*.post; do put "$file" "$tree/libexec/vm/jobs"; done
  for file in scripts/packaging/systemd/*; do
    for manager in system user; do put "$file" "$tree/lib/systemd/$manager"; done
  done
  put scripts/packaging/tmpfiles.d/vm.conf "$tree/lib/tmpfiles.d"
  put scripts/packaging/install.sh "$tree" 755
}

# stage BINARY COMMON TREE: with the program of one platform.
stage() {
  mkdir -p "${3%/*}"
  cp -a "$2" "$3"
  mkdir -p "$3/bin"
  install -m 755 "$1" "$3/bin/vm"
}
