import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import type { Context } from "../../src/vm/context.ts";
import { findOnPath, Media } from "../../src/vm/media.ts";
import type { Vm } from "../../src/vm/find.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  for (const name of ["bin", "host", "media"]) temp.directory(name);
});
afterEach(() => temp[Symbol.dispose]());

/** Media of a VM; `script` is check-media on PATH, if given. */
function media(
  settings: { MEDIA_MIRROR?: string; MEDIA_STORAGE?: string },
  script?: string,
  more: { MEDIA?: string; userShell?: string } = {},
): Media {
  if (script !== undefined)
    chmodSync(temp.write("bin/check-media", script.replaceAll("TOP", temp.top)), 0o755);
  const { userShell = "", ...env } = more;
  const context = { prog: "vm", cwd: temp.path("host"), env: { PATH: temp.path("bin"), ...env } };
  const whole = { MEDIA_MIRROR: "", MEDIA_STORAGE: "", ...settings };
  const vm = { hostdir: temp.path("host"), raw: whole, settings: whole, userShell };
  return new Media(context as Partial<Context> as Context, vm as Partial<Vm> as Vm);
}

const SET = 'MEDIA="TOP/media"\n';

test("finds check-media on PATH although the current directory is gone", () => {
  const path = temp.write("bin/check-media", SET);
  const env = { PATH: temp.path("bin") };
  const context = (cwd: string): Context => ({ cwd: temp.path(cwd), env }) as Partial<Context> as Context;
  expect(findOnPath(context("gone"), "check-media")).toBe(path);
  expect(findOnPath(context("bin"), "check-media")).toBeUndefined();
});

describe("@MIRROR@ and @MEDIA@", () => {
  test.each<[string, Parameters<typeof media>, mirror: string | undefined]>([
    ["MEDIA and MEDIA_MIRROR", [{ MEDIA_MIRROR: "/alt" }, SET], "TOP/media/alt"],
    [
      "an empty MEDIA: MEDIA_MIRROR is an absolute path",
      [{ MEDIA_MIRROR: "/srv/alt" }, "MEDIA=''\n"],
      "/srv/alt",
    ],
    ["MEDIA is not set", [{ MEDIA_MIRROR: "/srv/alt" }, "unset MEDIA\n"], "/srv/alt"],
    ["an empty MEDIA_MIRROR: MEDIA itself", [{}, SET], "TOP/media"],
    ["both empty", [{}, "MEDIA=''\n"], undefined],
    ["an empty MEDIA_MIRROR, and no media", [{}, "false\n"], undefined],
    ["no check-media, and no mirror", [{}], undefined],
    ["no check-media", [{ MEDIA_MIRROR: "/srv/alt" }], "/srv/alt"],
    [
      "no check-media: MEDIA of the environment",
      [{ MEDIA_MIRROR: "/alt" }, undefined, { MEDIA: "/m" }],
      "/m/alt",
    ],
    [
      "MEDIA of vm.conf, which check-media only checks",
      [{}, ": $MEDIA\n", { userShell: "MEDIA=/m\n" }],
      "/m",
    ],
    ["vm.conf's own variables", [{}, "MEDIA=$PLACE\n", { userShell: "PLACE=/mnt/own\n" }], "/mnt/own"],
  ])("%s", async (_title, given, mirror) => {
    const { MIRROR } = await media(...given).macros(["@MIRROR@"], "/work");
    expect(MIRROR).toBe(mirror?.replace("TOP", temp.top));
  });

  test("root: MEDIA if requested and known", async () => {
    expect(await media({}, SET).root(["@MIRROR@"])).toBe(temp.path("media"));
    expect(await media({}, "false\n").root(["@MIRROR@"])).toBeUndefined();
    expect(await media({}, SET).root(["/x"])).toBeUndefined();
  });

  test("a failing check-media: 66, if a setting needs it", async () => {
    for (const [settings, path] of [
      [{ MEDIA_MIRROR: "/alt" }, "@MIRROR@"],
      [{}, "@MEDIA@/x"],
    ] as const)
      expect((await failureOf(() => media(settings, "false\n").macros([path], "/work"))).exitCode).toBe(66);
  });

  test("@MEDIA@ needs a definition (69), also after a search for an image", async () => {
    const found = media({ MEDIA_STORAGE: "/iso" });
    await failureOf(() => found.findIso("x.iso"));
    expect((await failureOf(() => found.macros(["@MEDIA@"], "/work"))).exitCode).toBe(69);
  });

  test("runs check-media once, and only if something needs it", async () => {
    const found = media({}, `echo x >>TOP/asked\n${SET}`);
    await found.macros(["@HOSTDIR@", "/x"], "/work");
    expect(await Bun.file(temp.path("asked")).exists()).toBe(false);
    await found.macros(["@MEDIA@", "@MIRROR@"], "/work");
    await found.findIso("x.iso").catch(() => {});
    expect(await Bun.file(temp.path("asked")).text()).toBe("x\n");
  });
});

describe("finds a CD image", () => {
  test.each<[string, { MEDIA_STORAGE?: string }, string, file: string]>([
    ["in MEDIA + MEDIA_STORAGE", { MEDIA_STORAGE: "/iso" }, SET, "media/iso/x.iso"],
    ["in MEDIA itself", {}, SET, "media/x.iso"],
    [
      "in MEDIA_STORAGE as an absolute path",
      { MEDIA_STORAGE: "TOP/media/iso" },
      "MEDIA=''\n",
      "media/iso/x.iso",
    ],
    ["in HOSTDIR, whatever check-media returns", {}, "false\n", "host/x.iso"],
  ])("%s", async (_title, settings, script, file) => {
    const path = temp.write(file, "\0".repeat(2048));
    const at = settings.MEDIA_STORAGE?.replace("TOP", temp.top);
    const given = at === undefined ? {} : { MEDIA_STORAGE: at };
    expect(await media(given, script).findIso("x.iso")).toBe(path);
  });

  test("nowhere: 66, with the error of check-media", async () => {
    const failure = await failureOf(() => media({}, "false\n").findIso("x.iso"));
    expect(failure.exitCode).toBe(66);
    expect(failure.message).toBe("no such CD image: x.iso");
    expect(failure.hint).toContain("check-media failed");
    expect((await failureOf(() => media({}, "MEDIA=''\n").findIso("x.iso"))).hint).not.toContain(
      "check-media",
    );
  });
});
