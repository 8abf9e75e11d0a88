import { expect, test } from "bun:test";
import { join } from "node:path";

test("loading zx does not create process.stdin and process.stderr (scripts/packaging/zx.patch)", () => {
  const script = `
    const { getOwnPropertyDescriptor } = Object;
    const looked = [];
    Object.getOwnPropertyDescriptor = (object, key) => {
      if (object === process) looked.push(key);
      return getOwnPropertyDescriptor(object, key);
    };
    const { $ } = require("zx/core");
    console.log(typeof $, looked.join());
  `;
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", script], {
    cwd: join(import.meta.dir, "../.."),
  });
  expect(stderr.toString()).toBe("");
  expect(stdout.toString()).toBe("function \n");
});

test("loading zx does not load node:tty, node:stream and node:util (scripts/packaging/zx.patch)", () => {
  const script = `
    const { Module } = require("node:module");
    const asked = [];
    const { require: original } = Module.prototype;
    Module.prototype.require = function (name) {
      asked.push(name);
      return original.call(this, name);
    };
    require("zx/core");
    console.log(asked.filter((name) => ["tty", "stream", "util"].includes(name)).join());
  `;
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", script], {
    cwd: join(import.meta.dir, "../.."),
  });
  expect(stderr.toString()).toBe("");
  expect(stdout.toString()).toBe("\n");
});
