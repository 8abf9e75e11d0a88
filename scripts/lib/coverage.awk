# Line coverage of each folder of src, from an lcov file (geninfo(1)): fails where one is below `least` per cent.
# src/main.ts, which starts the program, is in no folder.
# Of files that no test loads all lines count as missing, roughly: those that are neither empty nor comments.
/^SF:/ { file = "" }
/^SF:src\/.*\// { file = substr($0, 4); split(file, part, "/"); folder = part[2]; seen[file] = 1 }
file != "" && /^LF:/ { found[folder] += substr($0, 4) }
file != "" && /^LH:/ { hit[folder] += substr($0, 4) }
END {
  while (("find src/*/ -name '*.ts'" | getline path) > 0) {
    if (path in seen) continue
    split(path, part, "/")
    folder = part[2]
    while ((getline line < path) > 0) if (line !~ /^ *(\/\/|\/?\*|$)/ && line !~ /^(import|export (type|interface)) /) found[folder]++
  }
  for (folder in found) {
    percent = 100 * hit[folder] / found[folder]
    printf "%-10s %5.1f %% of %d lines%s\n", folder, percent, found[folder], percent < least ? ", which is too few" : "" | "sort"
    if (percent < least) bad = 1
  }
  close("sort")
  exit bad
}
