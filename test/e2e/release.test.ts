/** Results of `scripts/release`: archive, packages, and their contents. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { dependencies, version } from "../../package.json";
import { JOB_FILES } from "../../src/rescue/assets.ts";
import { binary, checkout, Sandbox } from "./harness.ts";
import { configure, listing, mode, names, rootTest, shell, suite, testInTurn } from "./tools.ts";

const [platform, debArch, rpmArch] =
  process.arch === "arm64" ? ["arm64", "arm64", "aarch64"] : ["x64", "amd64", "x86_64"];
const ARCHIVE = `vm-${version}-linux-${platform}.tar.xz`;
const DEB = `vm_${version}_${debArch}.deb`;
const RPM = `vm-${version}-alt1.${rpmArch}.rpm`;

/** Below the prefix, in every package; zsh's directory depends on the distribution. */
const INSTALLED = [
  "bin/vm",
  ...["system", "user"].flatMap((manager) =>
    ["vm-backup@.service", "vm-backup@.timer", "vm-prune@.service", "vm-prune@.timer", "vm@.service"].map(
      (name) => `lib/systemd/${manager}/${name}`,
    ),
  ),
  "lib/tmpfiles.d/vm.conf",
  ...Object.keys(JOB_FILES).map((name) => `libexec/vm/jobs/${name}`),
  "libexec/vm/rescue-stage3",
  "share/bash-completion/completions/vm",
  "share/doc/vm/README.md",
  "share/doc/vm/examples/vm.conf",
  "share/doc/vm/licenses.txt",
  "share/doc/vm/vm.cdx.json",
  "share/fish/vendor_completions.d/vm.fish",
  "share/man/man1/vm.1.gz",
];

/** Files, without directories. */
const filesIn = (directory: string): string[] =>
  names(directory).flatMap((name) =>
    lstatSync(join(directory, name)).isDirectory()
      ? filesIn(join(directory, name)).map((below) => `${name}/${below}`)
      : [name],
  );

suite(
  "a release",
  () => {
    let box: Sandbox;
    let out: string;
    /** The unpacked archive. */
    let tree: string;
    beforeAll(async () => {
      box = new Sandbox();
      out = join(box.top, "out");
      const made = await Bun.$`${checkout}/scripts/release --only=${platform} --quick --out=${out}`
        .env({ ...process.env, VM_BINARY: binary })
        .nothrow()
        .quiet();
      if (made.exitCode !== 0) throw new Error(made.stdout.toString() + made.stderr.toString());
      await shell(`tar -xf out/${ARCHIVE}`, box.top);
      tree = join(box.top, ARCHIVE.replace(".tar.xz", ""));
    });
    afterAll(() => box[Symbol.dispose]());

    /** Runs the archive's install.sh. */
    const installer = (variables: Record<string, string>, ...args: string[]) =>
      Bun.$`${tree}/install.sh ${args}`
        .env({ PATH: process.env.PATH!, ...variables })
        .nothrow()
        .quiet();

    test("its files, and their checksums", async () => {
      const files = [`vm-${version}-linux-${platform}`, ARCHIVE, DEB, RPM, `vm-${version}.cdx.json`];
      expect(names(out)).toEqual([...files, "SHA256SUMS"].toSorted());
      const checked = await shell("sha256sum -c SHA256SUMS", out);
      expect(checked.trim().split("\n").toSorted()).toEqual(files.map((name) => `${name}: OK`).toSorted());
    });

    describe("the .deb", () => {
      test("depends on the program's requirements", async () => {
        const control = await shell(`dpkg-deb -f ${DEB}`, out);
        expect(control).toMatch(/^Depends: .*qemu-system-x86 .*\| qemu-system .*qemu-utils, pigz$/m);
        expect(control).toMatch(/^Recommends: .*ovmf/m);
        expect(control).toMatch(/^Suggests: .*restic.*virt-viewer/m);
        expect(control).toContain(`Version: ${version}\n`);
      });

      test("contains the program, which runs, and its files, owned by root", async () => {
        const root = join(box.top, "deb");
        await shell(`dpkg-deb -x ${DEB} ${root} && dpkg-deb -e ${DEB} ${root}/DEBIAN`, out);
        const files = filesIn(join(root, "usr"));
        expect(files).toEqual(expect.arrayContaining(INSTALLED));
        expect(files).toContain("share/zsh/vendor-completions/_vm");
        expect((await shell(`dpkg-deb -c ${DEB}`, out)).match(/ (?!root\/root)\w+\/\w+ /)).toBeNull();
        expect(readFileSync(join(root, "DEBIAN/conffiles"), "utf8")).toBe("/etc/vm.conf\n");
        await shell("md5sum --quiet -c DEBIAN/md5sums", root);
        const { stdout } = await box.ok(["--version"], { program: [join(root, "usr/bin/vm")] });
        expect(stdout).toBe(`vm ${version}\n`);
      });

      rootTest("is installed by dpkg, and purged completely", async () => {
        const root = join(box.top, "dpkg");
        mkdirSync(join(root, "var/lib/dpkg/updates"), { recursive: true });
        writeFileSync(join(root, "var/lib/dpkg/status"), "");
        const dpkg = `dpkg --root=${root} --log=/dev/null --force-depends --force-script-chrootless`;
        await shell(`${dpkg} -i ${DEB}`, out);
        appendFileSync(join(root, "etc/vm.conf"), "CORES=3\n");
        await shell(`${dpkg} -r vm && ${dpkg} -P vm`, out);
        expect(filesIn(root).filter((name) => !name.startsWith("var/"))).toEqual([]);
      });

      testInTurn(1, 4)("lintian reports only explained tags", async () => {
        const said =
          await Bun.$`lintian --allow-root --tag-display-limit 0 -I --fail-on error,warning,info ${join(out, DEB)}`
            .nothrow()
            .quiet();
        expect(said.stdout.toString()).toBe("");
        expect(said.exitCode).toBe(0);
      });
    });

    describe("the .rpm", () => {
      test("depends on the program's requirements, and nothing else", async () => {
        const needed = (await shell(`rpm -qp --requires ${RPM}`, out)).trim().split("\n");
        expect(needed).toEqual(expect.arrayContaining(["qemu-system", "qemu-img", "pigz"]));
        const known =
          /^(qemu-system|qemu-img|pigz|\/bin\/bash|config\(vm\).*|rpmlib\(.*|(ld-linux[\w-]*|lib(c|m|dl|pthread))\.so\.\d\(.*)$/;
        expect(needed.filter((word) => !known.test(word))).toEqual([]);
        // A name that only the package itself can provide.
        expect(await shell(`rpm -qp --provides ${RPM}`, out)).toContain("config(vm) = ");
        expect(await shell(`rpm -qp --scripts ${RPM}`, out)).toBe("");
      });

      test("contains the same files as the archive, the program byte by byte", async () => {
        const listed = (await shell(`rpm -qpl ${RPM}`, out)).split("\n");
        expect(listed).toEqual(expect.arrayContaining(INSTALLED.map((name) => `/usr/${name}`)));
        expect(listed).toContain("/usr/share/zsh/site-functions/_vm");
        expect(await shell(`rpm -qpc ${RPM}`, out)).toBe("/etc/vm.conf\n");
        const digests = await shell(`rpm -qp --dump ${RPM}`, out);
        const [digest] = (await shell(`sha256sum vm-${version}-linux-${platform}`, out)).split(" ");
        expect(digests).toMatch(new RegExp(`^/usr/bin/vm \\d+ \\d+ ${digest} 0100755 root root `, "m"));
      });

      test("rpmlint reports only explained warnings", async () => {
        const config = join(checkout, "scripts/packaging/rpm/rpmlint.toml");
        const said = await Bun.$`rpmlint -c ${config} ${join(out, RPM)}`.nothrow().quiet();
        expect(said.stdout.toString()).toContain("0 errors, 0 warnings");
        expect(said.exitCode).toBe(0);
      });
    });

    describe("install.sh", () => {
      test("installs into DESTDIR, over itself, and uninstalls completely", async () => {
        const destination = join(box.top, "staged");
        for (let times = 0; times < 2; times++) {
          const { exitCode, stderr } = await installer({ DESTDIR: destination });
          expect([exitCode, stderr.toString()]).toEqual([0, ""]);
        }
        expect(filesIn(join(destination, "usr/local"))).toEqual(expect.arrayContaining(INSTALLED));
        expect(mode(join(destination, "usr/local/bin/vm"))).toBe("755");
        const again = await installer({ DESTDIR: destination }, "--uninstall");
        expect([again.exitCode, again.stderr.toString()]).toEqual([0, ""]);
        expect(listing(destination)).toEqual([]);
        expect((await installer({ DESTDIR: destination }, "--uninstall")).exitCode).toBe(66);
      });

      test("keeps files of others, and changed settings", async () => {
        const destination = join(box.top, "shared");
        const own = [
          "usr/local/bin/other",
          "usr/local/libexec/vm/jobs/mine.job",
          "usr/local/share/man/man1/x.1",
        ];
        mkdirSync(join(destination, "usr/local/bin"), { recursive: true });
        await installer({ DESTDIR: destination });
        for (const name of own) writeFileSync(join(destination, name), "");
        appendFileSync(join(destination, "etc/vm.conf"), "CORES=3\n");
        await installer({ DESTDIR: destination });
        await installer({ DESTDIR: destination }, "--uninstall");
        expect(filesIn(destination)).toEqual(["etc/vm.conf", ...own]);
        expect(readFileSync(join(destination, "etc/vm.conf"), "utf8")).toEndWith("CORES=3\n");
      });

      test("removes files that a newer version no longer has", async () => {
        const destination = join(box.top, "upgraded");
        await installer({ DESTDIR: destination });
        const old = join(destination, "usr/local/libexec/vm/jobs/old.job");
        writeFileSync(old, "");
        appendFileSync(
          join(destination, "usr/local/libexec/vm/installed"),
          "f /usr/local/libexec/vm/jobs/old.job\n",
        );
        await installer({ DESTDIR: destination });
        expect(existsSync(old)).toBe(false);
        expect(existsSync(join(destination, "usr/local/bin/vm"))).toBe(true);
      });
    });

    describe("when installed", () => {
      let prefix: string;
      beforeAll(async () => {
        prefix = join(box.top, "prefix");
        const { exitCode } = await installer({ PREFIX: prefix, SYSCONFDIR: join(box.top, "etc") });
        expect(exitCode).toBe(0);
      });

      test("jobs are those beside the program, unless others can write them", async () => {
        const program = [join(prefix, "bin/vm")];
        const used = async (): Promise<string> => (await box.ok(["config", "LIBEXEC"], { program })).stdout;
        expect(await used()).toStartWith(`LIBEXEC=${prefix}/libexec/vm `);
        expect((await box.ok(["config", "LIBEXEC"])).stdout).not.toContain(prefix);
        chmodSync(join(prefix, "libexec/vm/jobs"), 0o777);
        expect(await used()).toStartWith(`LIBEXEC=${box.home}/.cache/vm/data-`);
        chmodSync(join(prefix, "libexec/vm/jobs"), 0o755);
        expect((await box.ok(["completion", "bash"])).stdout).toBe(
          readFileSync(join(prefix, "share/bash-completion/completions/vm"), "utf8"),
        );
      });

      test.each(["system", "user"])("systemd accepts the units of the %s manager", async (manager) => {
        const units = join(prefix, "lib/systemd", manager);
        const instance = (await shell("systemd-escape --path '/srv/my vm/100% ж'", "/")).trim();
        const paths = names(units).map((name) => join(units, name.replace("@", `@${instance}`)));
        const child = Bun.spawn(["systemd-analyze", `--${manager}`, "verify", ...paths], {
          env: {
            ...box.env({ XDG_RUNTIME_DIR: box.top, MANPATH: join(prefix, "share/man") }),
            SYSTEMD_LOG_LEVEL: "info",
          },
          stdout: "pipe",
          stderr: "pipe",
        });
        const said = (await new Response(child.stdout).text()) + (await new Response(child.stderr).text());
        expect(said.split("\n").filter((line) => line.includes("vm-"))).toEqual([]);
        expect(await child.exited, said).toBe(0);
      });
    });

    test("the bill of materials names all parts of the program", () => {
      const bill = JSON.parse(readFileSync(join(out, `vm-${version}.cdx.json`), "utf8")) as {
        bomFormat: string;
        components: { name: string; version: string; hashes: unknown[]; licenses: unknown[] }[];
      };
      expect(bill.bomFormat).toBe("CycloneDX");
      for (const [name, number] of Object.entries(dependencies)) {
        const found = bill.components.find((component) => component.name === name);
        expect(found).toMatchObject({ version: number });
        expect([found!.hashes.length, found!.licenses.length]).toEqual([1, 1]);
      }
      expect(JSON.stringify(bill)).toContain("JavaScriptCore");
    });

    test("--licenses prints the text of each package in it", async () => {
      const { stdout, stderr } = await box.ok(["--licenses"]);
      expect(stderr).toBe("");
      for (const name of Object.keys(dependencies))
        expect(stdout).toContain(
          readFileSync(join(checkout, "node_modules", name, "LICENSE"), "utf8").trim(),
        );
      for (const part of [
        "JavaScriptCore",
        "GNU GENERAL PUBLIC LICENSE",
        "GNU LESSER GENERAL PUBLIC LICENSE",
      ])
        expect(stdout).toContain(part);
      expect(readFileSync(join(tree, "share/doc/vm/licenses.txt"), "utf8")).toBe(stdout);
    });

    test("the example of settings is valid, and changes nothing", async () => {
      const before = (await box.ok(["config", "--json"])).stdout;
      configure(box, readFileSync(join(tree, "share/doc/vm/examples/vm.conf"), "utf8"));
      expect((await box.ok(["config", "--json"])).stdout).toBe(before);
      const { stdout } = await box.ok(["config", "--example"]);
      expect(readFileSync(join(tree, "etc/vm.conf"), "utf8")).toBe(stdout);
      configure(box, stdout.replace("#CORES=2", "CORES=5"));
      expect((await box.ok(["config", "CORES"])).stdout).toStartWith("CORES=5 ");
    });
  },
  ["dpkg", "dpkg-deb", "lintian", "rpm", "rpmbuild", "rpmlint", "systemd-analyze", "xz"],
);
