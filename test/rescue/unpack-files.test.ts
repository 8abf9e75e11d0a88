/** The part of the job `files` that replaces files, by this machine's bash: the rescue's programs are stood in for. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Temp } from "../fixtures/temp.ts";

const PART = join(import.meta.dir, "../../scripts/rescue/unpack-files");

/** @param more stubs. @returns the guest's root, the status and the message */
function unpack(
  top: Temp,
  paths: readonly string[],
  more = "",
): { root: string; status: number; message: string } {
  const root = join(top.top, "root");
  const script = `set -efu; export LC_ALL=C; set -o pipefail
cd ${top.top}; ROOT=$PWD/root BASE=$PWD/root INDIR=$PWD OUTDIR=$PWD RESULT=$PWD/result
mkdir -p root/b packed/1; [ -e root/a ] || { echo old >root/a; echo old >root/b/old; }; echo new >packed/0; echo new >packed/1/new
tar -cf result -C packed 0 1
fail() { printf '%s\\n' "$2" >&2; exit "$1"; }
failed() { fail "$2" "$3"; }
locate() { REAL=\${1%/}; }
lsattr() { :; }
sync() { :; }
. ${PART}
${more}
check_all
unpack`;
  writeFileSync(join(top.top, "paths"), paths.map((path) => `${path}\0`).join(""));
  const { exitCode, stderr } = Bun.spawnSync(["bash", "-c", script]);
  return { root, status: exitCode, message: stderr.toString() };
}

test("replaces a file and a directory, and leaves nothing beside them", () => {
  using top = new Temp();
  const { root, status, message } = unpack(top, ["/a", "/b"]);
  expect({ status, message }).toEqual({ status: 0, message: "" });
  expect(readFileSync(join(root, "a"), "utf8")).toBe("new\n");
  expect(existsSync(join(root, "b/new"))).toBe(true);
  expect(existsSync(join(root, "b/old"))).toBe(false);
  expect(existsSync(join(root, ".vm-partial-restore"))).toBe(false);
});

/** @returns what a function of the job packs of the only file */
function pack(file: string): string {
  const job = join(import.meta.dir, "../../scripts/rescue/files.job");
  const script = `set -efu; eval "$(sed -n '/^pack() {$/,/^}$/p' ${job})"
ONLY=$1 RESULT=$2; pack; tar -xOf "$2" 0`;
  return Bun.spawnSync(["bash", "-c", script, "-", file, `${file}.tar`]).stdout.toString();
}

test("packs the file of a name with a backslash, not that whose name the escape stands for", () => {
  using top = new Temp();
  for (const name of ["a\\nb", "a\nb", "d\\tx/f", "d\tx/f", "-n", "*"]) {
    mkdirSync(dirname(join(top.top, name)), { recursive: true });
    writeFileSync(join(top.top, name), name);
  }
  for (const name of ["a\\nb", "a\nb", "d\\tx/f", "d\tx/f", "-n", "*"])
    expect(pack(join(top.top, name))).toBe(name);
});

test("a directory with an entry that cannot be read is not listed as if it were whole", () => {
  using top = new Temp();
  mkdirSync(join(top.top, "d/whole"), { recursive: true });
  const job = join(import.meta.dir, "../../scripts/rescue/files.job");
  const script = `set -efu; eval "$(sed -n '/^entries() {$/,/^}$/p' ${job})"
find_short() { find "\${STARTS[@]}" "\${DEPTH[@]}" "$@"; return 1; }
ONLY=$1 OPERATION=list; if entries; then exit 0; else exit 9; fi`;
  const { stdout, exitCode } = Bun.spawnSync(["bash", "-c", script, "-", join(top.top, "d")]);
  expect(stdout.toString()).toStartWith("whole//d ");
  expect(exitCode).toBe(9);
});

test("paths that are too long are left out and counted; where none can be, all are listed", () => {
  using top = new Temp();
  const job = join(import.meta.dir, "../../scripts/rescue/files.job");
  const counted = join(top.top, "long");
  const list = (directory: string, maximum = ""): string[] => {
    const functions = ["find_short", "may_be_long", "until_end"].map((name) => `/^${name}() {$/,/^}$/p`);
    const script = `set -efu; eval "$(sed -n '${functions.join("; ")}' ${job} | sed 's|/run/long|'"$2"'|')"
cd "$1"; STARTS=(.) DEPTH=(-mindepth 1 ${maximum}) END=''
find_short -printf 'x\\n' | wc -l; cat "$2"`;
    const { stdout } = Bun.spawnSync(["bash", "-c", script, "-", directory, counted]);
    return stdout.toString().trim().split("\n");
  };
  const [flat, deep] = [join(top.top, "flat"), join(top.top, "deep")];
  mkdirSync(join(flat, "a/b"), { recursive: true });
  mkdirSync(deep);
  const nest = `cd "$1"; n=$(printf '%0250d' 0); for turn in {1..20}; do mkdir "$n"; cd -P "./$n" || exit; touch file; done`;
  Bun.spawnSync(["bash", "-c", nest, "-", deep]);
  expect(list(flat)).toEqual(["2"]);
  // 16 directories of 251 bytes are within the limit, with a file in each; the next one is not.
  expect(list(deep)).toEqual(["32", "."]);
  expect(list(deep, "-maxdepth 1")).toEqual(["1"]);
  Bun.spawnSync(["rm", "-rf", deep]);
});

test("unpacks into a directory whose name has a backslash", () => {
  using top = new Temp();
  const directory = join(top.top, "root/d\\nx");
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "a"), "old\n");
  const { status, message } = unpack(top, ["/d\\nx/a"]);
  expect({ status, message }).toEqual({ status: 0, message: "" });
  expect(readFileSync(join(directory, "a"), "utf8")).toBe("new\n");
});

test("a second path that cannot be replaced puts the first one back", () => {
  using top = new Temp();
  const mv = `mv() { case $*: in */1*/root/b:) return 1 ;; esac; command mv "$@"; }`;
  const { root, status, message } = unpack(top, ["/a", "/b"], mv);
  expect({ status, message }).toEqual({ status: 74, message: "cannot replace /b; nothing was changed\n" });
  expect(readFileSync(join(root, "a"), "utf8")).toBe("old\n");
  expect(existsSync(join(root, "b/old"))).toBe(true);
  expect(existsSync(join(root, "b/new"))).toBe(false);
  expect(existsSync(join(root, ".vm-partial-restore"))).toBe(false);
});

test("a file that chattr protects is found before anything is written", () => {
  using top = new Temp();
  const lsattr = `lsattr() { case $1 in -Ra) printf '%s\\n' "--------------e------- $2/a" line "----i---------e------- $2/x y" ;; esac; }`;
  const { root, status, message } = unpack(top, ["/a", "/b"], lsattr);
  expect(status).toBe(74);
  expect(message).toBe(
    "cannot replace /b: /b/x y is immutable or append-only (chattr); nothing was changed\n",
  );
  expect(readFileSync(join(top.top, "fixed"), "utf8")).toBe("/b/x y");
  expect(readFileSync(join(root, "a"), "utf8")).toBe("old\n");
});
