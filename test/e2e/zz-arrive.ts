import { randomBytes } from "node:crypto";
import { rmSync, writeFileSync, existsSync, realpathSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { initRepository } from "../fixtures/restic-repository.ts";
import { buildCountGuest } from "../guests/count.ts";
import { Sandbox, until } from "./harness.ts";
import { configure } from "./tools.ts";
import { run } from "./images.ts";
import { listFuseMounts, unmountFuse } from "../../src/process/mounts.ts";
const [size, places, limit] = process.argv.slice(2);
const box = new Sandbox("vm1", "/tmp/h-holes");
writeFileSync(join(box.home, "password"), "x", { mode: 0o600 });
configure(
  box,
  `MEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=${size}G)\nSHARES=()\nSNAPSHOT_FORMAT=qcow2\nSNAPSHOT_REPO=${box.top}/repo\nSNAPSHOT_PASSWORD_FILE=${box.home}/password\n`,
);
await box.ok(["create", "G"]);
rmSync(join(box.work, "FIRSTTIME"), { force: true });
writeFileSync(join(box.top, "sector"), await buildCountGuest());
writeFileSync(join(box.top, "random"), randomBytes(64 << 20));
const n = Number(places),
  part = 64 / n;
const cmds = [`write -q -s ${box.top}/sector 0 512`];
for (let i = 0; i < n; i++)
  cmds.push(`write -q -P ${i + 1} ${1 + Math.floor((i * Number(size) * 1024) / n)}M ${part}M`);
if (n === 1) cmds[1] = `write -q -s ${box.top}/random 1M 64M`;
await run(["qemu-io", "-f", "qcow2", ...cmds.flatMap((c) => ["-c", c]), join(box.work, "disk-0.img")]);
initRepository(join(box.top, "repo"), join(box.home, "password"));
await box.ok(["backup", "S0", "--push"]);
rmSync(join(box.host, "backups"), { recursive: true });
const t0 = performance.now();
const since = () => ((performance.now() - t0) / 1000).toFixed(2);
const command = box.start(["restore", "S0", "--from-remote", "--run"]);
const log = () => {
  const link = join(box.host, ".work");
  const l = existsSync(link) ? join(realpathSync(link), "console.log") : "";
  return existsSync(l) ? readFileSync(l, "utf8") : "";
};
const old = box.work;
await until("guest", () => box.work !== old && log().length > 0);
console.log("first message", since());
await command.done;
console.log("command", since());
const end = Date.now() + Number(limit) * 1000;
for (;;) {
  const s = JSON.parse((await box.ok(["status", "--json"])).stdout);
  if (!s.arriving) break;
  if (Date.now() > end) {
    console.log("unfinished", since(), s.arriving.percent, "%");
    break;
  }
  await Bun.sleep(500);
}
console.log("arrived", since());
await box.vm(["destroy", "--force"]);
listFuseMounts(box.top).forEach(unmountFuse);
box[Symbol.dispose]();
