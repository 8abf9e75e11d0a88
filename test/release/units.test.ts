/** The units of the packages are those of `vm timer` and `vm autostart`, except for the instance. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { buildUnit } from "../../src/lifecycle/autostart/unit.ts";
import { buildUnits } from "../../src/host/timer/units.ts";

const packaged = (name: string): string =>
  readFileSync(join(import.meta.dir, "../../scripts/packaging/systemd", name), "utf8");

/** `[Section] Name=value`, without descriptions and comments. */
function lines(text: string): string[] {
  let section = "";
  return text.split("\n").flatMap((line) => {
    if (line.startsWith("[")) section = line;
    return /^(Description|Documentation)=|^#|^\[|^$/.test(line) ? [] : [`${section} ${line}`];
  });
}

const unquoted = (text: string): string => text.replaceAll('"', "");

const EXPECTED = {
  backup: { when: "daily", argv: ["backup", "--quiet", "--lock-timeout=600"] },
  prune: { when: "weekly", argv: ["prune", "--quiet"] },
};

test.each(["backup", "prune"] as const)("vm-%s@", (kind) => {
  const { when, argv } = EXPECTED[kind];
  const { service, timer } = buildUnits({
    prog: "vm",
    hostdir: "/srv/vm",
    guest: "",
    argv: ["/usr/bin/vm", ...argv],
    kind,
    when,
    env: {},
    system: true,
  });
  expect(lines(packaged(`vm-${kind}@.timer`))).toEqual(lines(timer.text));
  const own = lines(packaged(`vm-${kind}@.service`)).map((line) =>
    line
      .replace(":/usr/local/bin/vm --hostdir=%f ", "/usr/bin/vm ")
      // An instance waits for its other unit.
      .replace(" vm-backup@%i.service", ""),
  );
  expect(own).toEqual(lines(unquoted(service.text)));
});

test("vm@", () => {
  const plan = {
    directory: "/srv/vm",
    guest: "",
    order: 50,
    delaySeconds: 0,
    restart: false,
    wait: null,
    stopSeconds: 60,
    program: "/usr/bin/vm",
    env: {},
    working: "/srv/vm",
  };
  const written = lines(unquoted(buildUnit({ plan, system: true, after: [] })));
  const own = lines(packaged("vm@.service")).map((line) =>
    line
      .replace(":/usr/local/bin/vm -d %f ", "/usr/bin/vm -d /srv/vm ")
      // Of both managers.
      .replace("default.target", "multi-user.target"),
  );
  // What only the unit of one VM has.
  expect(own).toEqual(written.filter((line) => !/RequiresMountsFor=|^\[X-/.test(line)));
});
