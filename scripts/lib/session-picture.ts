/** Runs a short session with the real program in a pseudo-terminal (util-linux's script) and draws it. */
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { buildGuests } from "../../test/guests/build.ts";
import { exitOnSignals } from "./signals.ts";
import { Terminal, drawTerminal } from "./terminal.ts";

const COLUMNS = 104;
const PROMPT = "\x1b[1;32m~/vm/WS10\x1b[0m $ ";
const COMMANDS = [
  "vm -h | head -n 4",
  "vm -m 512M create WS10 install.iso",
  "vm run",
  "vm backup S0 'freshly installed'",
  "vm destroy",
  "vm @restore S0 @run",
];

const [output = "session.svg"] = process.argv.slice(2);
const top = realpathSync(mkdtempSync(join(tmpdir(), "vm-picture-")));
let running: Bun.Subprocess | undefined;
process.on("exit", () => {
  running?.kill();
  rmSync(top, { recursive: true, force: true });
});
exitOnSignals();
const home = join(top, "home");
const host = join(home, "vm/WS10");
const bin = join(top, "bin");
const tmp = join(top, "tmp");
for (const directory of [host, join(home, ".config"), bin, tmp]) mkdirSync(directory, { recursive: true });
copyFileSync(process.env.VM_BINARY!, join(bin, "vm"));
chmodSync(join(bin, "vm"), 0o755);
const { installerIso } = await buildGuests(resolve(import.meta.dir, "../../.cache/guests"));
copyFileSync(installerIso, join(host, "install.iso"));
// Said once is enough: no KVM here is no news for the README.
writeFileSync(join(home, ".config/vm.conf"), "ACCEL=tcg\n");

/** As an ordinary user, without the warnings for root. */
const asUser: string[] = [];
if (process.getuid!() === 0) {
  await Bun.$`chown -R 65534:65534 ${top}`;
  asUser.push("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--");
}

const terminal = new Terminal(COLUMNS);
for (const command of COMMANDS) {
  terminal.write(`${PROMPT}${command}\r\n`);
  const session = `stty cols ${COLUMNS} && ${command}`;
  const child = Bun.spawn([...asUser, "script", "--quiet", "--return", "--command", session, "/dev/null"], {
    cwd: host,
    env: {
      PATH: `${bin}:${process.env.PATH}`,
      HOME: home,
      TMPDIR: tmp,
      LANG: "C.UTF-8",
      TERM: "xterm",
      SHELL: "/bin/sh",
    },
    stdin: "ignore",
    stderr: "inherit",
  });
  running = child;
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`${command} failed:\n${text}`);
  terminal.write(`${text.replaceAll(home, "~").replaceAll(tmp, "/tmp")}\r\n`);
}
writeFileSync(
  output,
  drawTerminal(terminal, "A session with vm: create, run, backup, destroy, restore, run"),
);
console.log(`made ${output}`);
