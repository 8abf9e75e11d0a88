import { describe, expect, test } from "bun:test";
import type { Snapshot } from "../../src/store/snapshots.ts";
import { followChain } from "../../src/store/snapshot-chain.ts";

/** `name<parent`, `name:gz`, `name:old` */
function snapshots(...texts: string[]): Map<string, Snapshot> {
  return new Map(
    texts.map((text) => {
      const [, name, parent, kind] = /^([^<:]*)(?:<([^:]*))?(?::(.*))?$/.exec(text)!;
      const manifest = kind === "old" ? undefined : { format: kind ?? "qcow2", parent };
      return [name!, { name, dir: `/${name}`, made: new Date(0), manifest } as unknown as Snapshot];
    }),
  );
}

describe("followChain from a:", () => {
  test.each<[string[], string, RegExp | undefined]>([
    [["a"], "", undefined],
    [["a:gz"], "", undefined],
    [["a:old"], "", undefined],
    [["a<b", "b<c", "c"], "b c", undefined],
    [["a<b"], "", /^its parent "b" is missing$/],
    [["a<b", "b<c"], "b", /^b's parent "c" is missing$/],
    [["a<a"], "", /cycle/],
    [["a<b", "b<a"], "b", /cycle/],
    [["a<b", "b<c", "c<b"], "b c", /cycle/],
    [["a<b", "b:gz"], "", /no qcow2 snapshot/],
    [["a<b", "b:old"], "", /earlier program/],
    [["a<b:gz", "b"], "", /gz snapshots have none/],
    [["a<../b"], "", /no snapshot's name/],
    [["a<"], "", /no snapshot's name/],
    [["a<LAST"], "", /no snapshot's name/],
  ])("%j", (texts, names, reason) => {
    const all = snapshots(...texts);
    const { parents, problem } = followChain(all.get("a")!, (name) => all.get(name));
    expect(parents.map(({ name }) => name).join(" ")).toBe(names);
    if (reason) expect(problem).toMatch(reason);
    else expect(problem).toBeUndefined();
  });
});
