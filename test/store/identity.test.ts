import { describe, expect, test } from "bun:test";
import { parseIdentity, withIdentity, isForeign } from "../../src/store/identity.ts";

const A = "aaaaaaaa-0000-4000-8000-000000000001";
const B = "bbbbbbbb-0000-4000-8000-000000000002";

describe("parseIdentity", () => {
  test.each<[string, string, object | undefined]>([
    ["an older VM's", 'MEMORY="2G"\n', { uuid: undefined, former: [] }],
    ["with a UUID", `MEMORY="2G"\nUUID="${A}"\n`, { uuid: A, former: [] }],
    ["an empty UUID", 'MEMORY="2G"\nUUID=""\n', { uuid: undefined, former: [] }],
    ["the last one counts", `UUID="${A}"\nUUID=${B}\n`, { uuid: B, former: [] }],
    ["with a former one", `UUID="${B}"\nUUID_FORMER=(\n    "${A}"\n)\n`, { uuid: B, former: [A] }],
    ["an empty file", "", undefined],
    ["only a comment", "# x\n", undefined],
    ["more than plain assignments", `UUID="${A}"\nrm -rf /\n`, undefined],
    ["an unfinished assignment", `UUID="${A}`, undefined],
    ["an invalid UUID", "UUID=web\n", undefined],
    ["several UUIDs", `UUID=(${A} ${B})\n`, undefined],
    ["an invalid former one", `UUID="${A}"\nUUID_FORMER=(../x)\n`, undefined],
  ])("%s", (_title, text, expected) => {
    expect(parseIdentity(text)).toEqual(expected as never);
  });
});

describe("withIdentity", () => {
  test("is appended, and the user's lines are kept", () => {
    const text = '# mine\nMEMORY="4G" # more\n';
    expect(withIdentity(text, { uuid: A, former: [] })).toBe(`${text}UUID="${A}"\n`);
  });

  test("replaces the previous one", () => {
    const text = withIdentity(`MEMORY=1G\nUUID="${A}"\n`, { uuid: B, former: [A] })!;
    expect(parseIdentity(text)).toEqual({ uuid: B, former: [A] });
    expect(text).not.toContain(`UUID="${A}"`);
  });

  test("leaves the text unchanged if it has it already", () => {
    const text = `UUID='${A}'\nMEMORY=1G`;
    expect(withIdentity(text, { uuid: A, former: [] })).toBe(text);
  });

  test("removes former ones of another identity", () => {
    const text = withIdentity(`UUID="${A}"\nUUID_FORMER=("${B}")\n`, { uuid: A, former: [] })!;
    expect(parseIdentity(text)).toEqual({ uuid: A, former: [] });
  });

  test.each([
    ["an empty file", ""],
    ["a command", "touch x\n"],
    ["an unfinished last line", "MEMORY=1G\\"],
  ])("does not write to %s", (_title, text) => {
    expect(withIdentity(text, { uuid: A, former: [] })).toBeUndefined();
  });
});

test.each<[own: string[], vm: string | undefined, expected: boolean]>([
  [["a"], "a", false],
  [["b", "a"], "a", false],
  [["a"], "b", true],
  [["a"], undefined, false],
  [[], "b", false],
])("a VM known as %j: a snapshot of %p is another VM's: %p", (own, vm, expected) => {
  expect(isForeign(own, vm)).toBe(expected);
});
