import gpl from "../../LICENSE" with { type: "text" };
import citty from "../../node_modules/citty/LICENSE" with { type: "text" };
import consola from "../../node_modules/consola/LICENSE" with { type: "text" };
import defu from "../../node_modules/defu/LICENSE" with { type: "text" };
import pathe from "../../node_modules/pathe/LICENSE" with { type: "text" };
import zx from "../../node_modules/zx/LICENSE" with { type: "text" };
import zxParts from "../../node_modules/zx/build/3rd-party-licenses" with { type: "text" };
import { dependencies, devDependencies } from "../../package.json";
import bun from "../../scripts/licenses/bun.txt" with { type: "text" };
import lgpl20 from "../../scripts/licenses/LGPL-2.0.txt" with { type: "text" };
import lgpl21 from "../../scripts/licenses/LGPL-2.1.txt" with { type: "text" };

/** The licence texts of the packages that are compiled in. A test holds that all are here. */
const PACKAGES = { citty, consola, defu, pathe, zx } satisfies Record<keyof typeof dependencies, string>;

const RULE = "-".repeat(78);

const part = (title: string, ...texts: string[]): string =>
  [RULE, title, RULE, "", texts.map((text) => text.trim()).join("\n\n"), ""].join("\n");

/** What `--licenses` prints: our notice, and the licences of all that the one file holds. */
export function buildLicenses(prog: string, version: string): string {
  return [
    `${prog} ${version} is free software: you can redistribute it and/or modify it under the terms of the`,
    "GNU General Public License as published by the Free Software Foundation, version 3 or, at your option,",
    "any later version. It comes without any warranty. The file also holds other people's programs; their",
    "licences come first, that of this program is the last.",
    "",
    ...Object.entries(PACKAGES).map(([name, text]) =>
      part(`${name} ${dependencies[name as keyof typeof dependencies]}`, text),
    ),
    part(`parts of zx ${dependencies.zx}`, zxParts),
    part(`Bun ${devDependencies.bun}, the JavaScript runtime, and what is linked to it`, bun),
    part("GNU LGPL 2.0, for JavaScriptCore and WebKit in Bun", lgpl20),
    part("GNU LGPL 2.1, for tinycc in Bun", lgpl21),
    part(prog, gpl),
  ].join("\n");
}
