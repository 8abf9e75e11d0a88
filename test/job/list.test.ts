import { expect, test } from "bun:test";
import { JOB_FILES } from "../../src/rescue/assets.ts";
import { describeJob } from "../../src/job/list.ts";

test.each([
  ["", ""],
  ["# Makes it so.\ntrue\n", "Makes it so"],
  ["#!/bin/sh\n# shellcheck shell=bash\n#\n# First. Second.\n", "First"],
  ["true\n# too late\n", ""],
  ["\n# v1.2 of it\n", "v1.2 of it"],
])("%j does: %j", (script, description) => {
  expect(describeJob(script)).toBe(description);
});

test.each(Object.entries(JOB_FILES).filter(([name]) => name.endsWith(".job")))(
  "%s has a description",
  (_name, script) => {
    expect(describeJob(script)).not.toBe("");
  },
);
