/** `config`: the settings in force, and their origins. */
import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { SETTING_NAMES } from "../../src/config/schema.ts";
import { Sandbox } from "./harness.ts";
import { configure, expectError, names, shell, suite } from "./tools.ts";

suite("config", () => {
  test("prints the origin of each setting, and bash can read it", async () => {
    using box = new Sandbox();
    configure(box, "# mine\nCORES=3\nSHARES=( 'a:/x y' )\nSPICE_PASSWORD=hunter2\n");
    box.write("guest.env", `GUESTNAME="it's \\$HOME"\nFORWARDS="tcp::1-:2"\n`);
    const args = ["--memory=3G", "-f", "tcp::3-:4", "config"];
    const { stdout } = await box.ok(args);
    const conf = `${box.home}/.config/vm.conf`;
    for (const line of [
      /^CORES=3 +# CONF:2$/m,
      /^MEMORY=3G +# --memory$/m,
      /^SHARES=\( 'a:\/x y' \) +# CONF:3$/m,
      /^FORWARDS=\( tcp::1-:2 tcp::3-:4 \) +# HOST\/guest.env:2, and the command line$/m,
      /^# SPICE_PASSWORD is set +# CONF:4$/m,
      /^HOST=localhost +# built-in default$/m,
    ])
      expect(stdout.replaceAll(conf, "CONF").replaceAll(box.host, "HOST")).toMatch(line);
    expect(stdout).not.toContain("hunter2");
    for (const name of SETTING_NAMES) expect(stdout).toMatch(new RegExp(`\\b${name}\\b`));
    box.write("shown", stdout);
    const script = `. ./shown; printf '%s|' "$GUESTNAME" "$MEMORY" "\${SHARES[@]}" "\${FORWARDS[@]}"`;
    expect(await shell(script, box.host)).toBe("it's $HOME|3G|a:/x y|tcp::1-:2|tcp::3-:4|");
    expect(names(box.tmp)).toEqual([]);
  });

  test("of some settings, as text and as JSON", async () => {
    using box = new Sandbox();
    configure(box, "MEMORY=3G\nSPICE_PASSWORD=hunter2\n");
    expect((await box.ok(["config", "PORT", "CORES"])).stdout).toBe(
      "PORT=5900  # built-in default\nCORES=2    # built-in default\n",
    );
    const { stdout } = await box.ok(["config", "MEMORY", "SPICE_PASSWORD", "TIMEOUT", "--json"]);
    const file = `${box.home}/.config/vm.conf`;
    expect(JSON.parse(stdout)).toEqual({
      MEMORY: { value: 3072, raw: "3G", origin: { kind: "file", file, line: 1 } },
      SPICE_PASSWORD: { set: true, origin: { kind: "file", file, line: 2 } },
      TIMEOUT: { value: null, raw: "", origin: { kind: "default" } },
    });
    const hidden = await box.ok(["config", "SPICE_PASSWORD"], { env: { SPICE_PASSWORD: "hunter3" } });
    expect(hidden.stdout).toContain("is set");
    expect(hidden.stdout).not.toContain("hunter");
    expectError(
      await box.vm(["@config", "MEMRY", "@create", "G"]),
      64,
      /unknown setting MEMRY\n.*did you mean MEMORY/,
    );
    expect(names(box.host)).toEqual([]);
  });

  test("prints valid settings first, then errors (78)", async () => {
    using box = new Sandbox();
    configure(box, `CORES=many\nMEMORY=3G\nSPICE_PASSWORD=${"s".repeat(70)}\n`);
    box.write("guest.env", "SOCKETS=4\nPORT=99999\n");
    const result = await box.vm(["config"]);
    expectError(
      { ...result, stdout: "" },
      78,
      /vm\.conf:1: CORES='many'[^]*vm\.conf:3: [^]*guest\.env:2: PORT/,
    );
    expect(result.stdout).toMatch(/^MEMORY=3G /m);
    expect(result.stdout).toMatch(/^SOCKETS=4 /m);
    expect(result.stdout).not.toMatch(/^#? ?(CORES|PORT|SPICE_PASSWORD)\b/m);
    expect(result.stderr).not.toContain("ssss");
  });

  test("in the directory of all VMs, which is not a VM", async () => {
    using box = new Sandbox();
    mkdirSync(join(box.home, "vm"));
    expect((await box.ok(["config", "CORES"], { cwd: join(box.home, "vm") })).stdout).toMatch(/^CORES=2 /);
  });
});
