import { describe, expect, test } from "bun:test";
import { COMMANDS } from "../../src/cli/registry.ts";
import { parseCreateOptions } from "../../src/lifecycle/create-options.ts";
import { failureOf } from "../fixtures/failure.ts";

const FROM = { image: "a.qcow2", linked: false, sizeBytes: undefined };
const OWN_USER = { user: undefined, userData: undefined };

describe("the options of create:", () => {
  test.each<[Record<string, unknown>, object | undefined, object | undefined]>([
    [{}, undefined, undefined],
    [{ from: "a.qcow2" }, FROM, undefined],
    [{ from: "a.qcow2", linked: true }, { ...FROM, linked: true }, undefined],
    [{ from: "a.qcow2", "disk-size": "30G" }, { ...FROM, sizeBytes: 30 * 2 ** 30 }, undefined],
    [{ from: "a.qcow2", "cloud-init": true }, FROM, OWN_USER],
    [{ "cloud-init": true }, undefined, OWN_USER],
    [{ user: "me" }, undefined, { ...OWN_USER, user: "me" }],
    [{ "cloud-init": true, user: "me" }, undefined, { ...OWN_USER, user: "me" }],
    [{ "user-data": "my.yaml" }, undefined, { ...OWN_USER, userData: "my.yaml" }],
  ])("%j", (args, from, cloudInit) => {
    expect(parseCreateOptions(args)).toEqual({ from, cloudInit, images: [] } as ReturnType<
      typeof parseCreateOptions
    >);
  });

  test.each<[Record<string, unknown>, string]>([
    [{ image: ["VIRT=/a", "FOO=/b"] }, "--image: 'FOO=/b' is not allowed"],
    [{ from: "" }, "create: --from has no value"],
    [{ user: "" }, "create: --user has no value"],
    [{ linked: true }, "create: --linked needs --from"],
    [{ "disk-size": "30G" }, "create: --disk-size needs --from"],
    [{ from: "a", "disk-size": "much" }, "--disk-size: 'much' is not allowed"],
    [{ from: "a", "disk-size": "0" }, "--disk-size: '0' is not allowed"],
    [{ user: "me", "user-data": "f" }, "create: --user and --user-data exclude each other"],
    [{ user: "-x" }, "--user: '-x' is not allowed"],
    [{ user: "a b" }, "--user: 'a b' is not allowed"],
    [{ user: "ALL=(ALL)" }, "--user: 'ALL=(ALL)' is not allowed"],
    [{ user: "a\nb" }, "--user: 'a\nb' is not allowed"],
    [{ user: "a".repeat(33) }, `--user: '${"a".repeat(33)}' is not allowed`],
  ])("%j: %s", async (args, message) => {
    const error = await failureOf(() => parseCreateOptions(args));
    expect({ status: error.exitCode, message: error.message }).toEqual({ status: 64, message });
    expect(error.hint).toBeTruthy();
  });

  test("images are recorded in the order typed, without empty ones", () => {
    expect(parseCreateOptions({ image: ["VIRT=/b", "", "SCSI=raw=a"] }).images).toEqual([
      "VIRT=/b",
      "SCSI=raw=a",
    ]);
  });

  test("all of them are options of the command", () => {
    const options = COMMANDS.get("create")!.options.map(({ long }) => long);
    expect(options).toEqual(["from", "image", "linked", "disk-size", "cloud-init", "user", "user-data"]);
  });
});
