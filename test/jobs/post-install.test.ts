import { describe, expect, test } from "bun:test";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HookBench } from "./hook.ts";

const id = (flag: string): string => Bun.spawnSync(["id", flag]).stdout.toString().trim();
const SCRIPT = "echo hello\n";

describe("post-install.pre", () => {
  test("needs only a script", async () => {
    using bench = new HookBench();
    bench.host("post-install.sh", SCRIPT);
    expect(await bench.run("post-install.pre")).toEqual({ status: 0, output: "" });
    expect(bench.list()).toEqual(["SSHKEYS", "job.env", "post-install.sh"]);
    expect(bench.read("post-install.sh")).toBe(SCRIPT);
    expect(bench.read("SSHKEYS")).toBe("");
    expect(statSync(join(bench.in, "job.env")).mode & 0o777).toBe(0o600);
    expect(
      await bench.parameters(
        '"$SETUP_PROFILE" "$SETUP_SCRIPT" "$SETUP_USERNAME" "$SETUP_USER_UID" ' +
          '"$SETUP_VERBOSE$SETUP_ROOTDEV$SETUP_HOSTNAME" "${#SETUP_FILES[@]}" "${DESTDIR-unset}"',
      ),
    ).toBe(`<post-install><post-install.sh><${id("-un")}><${id("-u")}><><0><>`);
  });

  test("passes every parameter", async () => {
    using bench = new HookBench();
    bench.host(
      "web.env",
      `# mine
SETUP_VERBOSE=1 SETUP_ROOTDEV=LABEL=SYSTEM SETUP_SCRIPT=other.sh SETUP_HOSTNAME=box
SETUP_USERNAME=jo SETUP_USER_UID=1007 DESTDIR=/mnt/mine
SETUP_FILES=( "a b.txt" "$HOSTDIR/sub/c" directory )
SETUP_PASSWORD='p"$(x)'\\''
two' OTHER=$(basename "$HOSTDIR") OTHERS=( $OTHER 'x  y' )
readonly FIXED=1
declare -A SETUP_MAP=( [k]="v w" )`,
    );
    bench.host("other.sh", SCRIPT);
    for (const name of [
      "web.host-box.tgz",
      "web.user-jo.tgz",
      "web.user-no.tgz",
      "a b.txt",
      "sub/c",
      "directory/d",
    ])
      bench.host(name, name);
    const key = bench.host("k.pub", "ssh-rsa K");
    const done = await bench.run(
      "post-install.pre",
      { SSHKEYS: [key] },
      { SETUP_PROFILE: "web", DESTDIR: "/host" },
    );
    expect(done).toEqual({ status: 0, output: "" });
    expect(bench.list()).toEqual(
      ["DEBUG", "ROOTDEV", "SSHKEYS", "a b.txt", "c", "directory", "job.env", "post-install.sh"]
        .concat(["ssh-key-1.pub", "web.host-box.tgz", "web.user-jo.tgz"])
        .toSorted(),
    );
    expect(bench.read("ROOTDEV")).toBe("LABEL=SYSTEM\n");
    expect(bench.read("directory/d")).toBe("directory/d");
    expect(bench.read("web.user-jo.tgz")).toBe("web.user-jo.tgz");
    expect(
      await bench.parameters(
        '"$SETUP_PROFILE" "$SETUP_USERNAME" "$SETUP_USER_UID" "$SETUP_PASSWORD" "$OTHER" "${OTHERS[1]}" "$FIXED" "$DESTDIR" ' +
          '"${SETUP_MAP[k]}" "${SETUP_FILES[@]}"',
      ),
    ).toBe(
      `<web><jo><1007><p"$(x)'\ntwo><host dir><dir><1></mnt/mine><v w><a b.txt><${bench.hostdir}/sub/c><directory>`,
    );
  });

  test("the .env may refer to parameters that it does not set; empty ones stay empty", async () => {
    using bench = new HookBench();
    bench.host("post-install.sh", SCRIPT);
    bench.host("post-install.user-.tgz", "no");
    bench.host(
      "post-install.env",
      `HELLO="$SETUP_USERNAME:$SETUP_USER_UID:$SETUP_VERBOSE$SETUP_ROOTDEV$SETUP_HOSTNAME$DESTDIR:$SETUP_SCRIPT:\${#SETUP_FILES[@]}"
readonly FIXED="$SETUP_USERNAME in $INDIR$OUTDIR"
readonly SETUP_HOSTNAME=box
SETUP_USERNAME=
SETUP_USER_UID=`,
    );
    expect(await bench.run("post-install.pre")).toEqual({ status: 0, output: "" });
    expect(bench.list()).toEqual(["SSHKEYS", "job.env", "post-install.sh"]);
    const hello = `<${id("-un")}:${id("-u")}::post-install.sh:0>`;
    expect(
      await bench.parameters(
        '"$HELLO" "${SETUP_USERNAME-unset}" "${SETUP_USER_UID-unset}" "$SETUP_HOSTNAME"',
      ),
    ).toBe(`${hello}<><><box>`);
    // INDIR differs in the rescue.
    expect(await bench.parameters('"${FIXED%% *}"')).toBe(`<${id("-un")}>`);
    bench.host("post-install.post", 'echo "$HELLO,$SETUP_USERNAME,$FIXED"');
    const { status, output } = await bench.run("post-install.post");
    expect({ status, output }).toEqual({
      status: 0,
      output: `${hello.slice(1, -1)},,${id("-un")} in ${bench.in}${join(bench.workdir, ".out")}\n`,
    });
  });

  test("the user's .pre changes parameters, adds files, and may fail", async () => {
    using bench = new HookBench();
    bench.host("post-install.sh", SCRIPT);
    bench.host("extra", "e");
    bench.host(
      "post-install.pre",
      'SETUP_HOSTNAME="new $USERNAME"; SETUP_FILES+=(extra); echo x >"$INDIR/mine"; [ -z "${FAIL-}" ] || fatal no way',
    );
    expect((await bench.run("post-install.pre", { USERNAME: "n" })).status).toBe(0);
    expect(await bench.parameters('"$SETUP_HOSTNAME"')).toBe("<new n>");
    expect(bench.read("mine")).toBe("x\n");
    expect(bench.read("extra")).toBe("e");
    const failed = await bench.run("post-install.pre", { USERNAME: "n", FAIL: "1" });
    expect(failed).toEqual({ status: 1, output: "vm: no way\n" });
  });

  test.each<[string, string, string]>([
    ["SETUP_SCRIPT=none.sh", "", "SETUP_SCRIPT: no such file: "],
    ["SETUP_FILES=( none )", "", "SETUP_FILES: no such file: "],
    ["SETUP_FILES=( d/job.env )", "", "the name job.env is reserved"],
    ["SETUP_FILES=( d/post-install.sh )", "", "another file for the job has the name post-install.sh"],
    ["SETUP_FILES=( .. )", "", "the name .. is reserved"],
    ["SETUP_USERNAME=../x", "", "must not contain /"],
    ["", "a/b", "not a path: a/b"],
    ["", "..", "not a path: .."],
    ["", "nothing", "SETUP_SCRIPT: no such file: "],
  ])("refuses %j with the profile %j", async (env, profile, message) => {
    using bench = new HookBench();
    bench.host("post-install.sh", SCRIPT);
    bench.host("post-install.env", env);
    const { status, output } = await bench.run(
      "post-install.pre",
      {},
      profile ? { SETUP_PROFILE: profile } : {},
    );
    expect(status).toBe(1);
    expect(output).toContain(message);
  });
});

describe("post-install.post", () => {
  test("passes the job's environment to the user's .post", async () => {
    using bench = new HookBench();
    bench.host("p.sh", SCRIPT);
    bench.host("p.pre", "SETUP_X='changed by pre'");
    bench.host("p.post", 'echo "$SETUP_X, $SETUP_SCRIPT, $(cat "$OUTDIR/result")"; exit 3');
    mkdirSync(join(bench.workdir, ".out"));
    writeFileSync(join(bench.workdir, ".out/result"), "done");
    await bench.run("post-install.pre", {}, { SETUP_PROFILE: "p" });
    const done = await bench.run("post-install.post", {}, { SETUP_PROFILE: "p" });
    expect(done).toEqual({ status: 3, output: "changed by pre, p.sh, done\n" });
  });

  test("does nothing without one", async () => {
    using bench = new HookBench();
    expect(await bench.run("post-install.post")).toEqual({ status: 0, output: "" });
  });
});
