import { define } from "./define.ts";

export default define({
  meta: { name: "top", description: "show what running VMs use: CPU, memory, disks and network" },
  args: {
    selection: {
      type: "positional",
      valueHint: "PATTERN",
      required: false,
      many: true,
      description: "only these VMs: a name, in which * and ? stand for other text",
    },
    once: { type: "boolean", description: "print one table, as without a terminal" },
    json: {
      type: "boolean",
      description:
        "print [{name, directory, pid, cpuPercent, rssBytes, pssBytes, memoryBytes, disk, network}], once",
    },
    delay: {
      type: "string",
      valueHint: "SECONDS",
      description: "wait this long between two tables; default: 2",
    },
  },
  async parse({ selection, once, json, delay }, { options }) {
    const { parseDelay } = await import("../host/top/top.ts");
    const { parseSelection } = await import("../vm/list.ts");
    const words = (selection ?? []) as unknown as string[];
    return {
      selection: parseSelection(words, options.labels),
      once: once === true,
      json: json === true,
      delaySeconds: parseDelay(delay),
    };
  },
  async run(context, request) {
    const { showTop } = await import("../host/top/top.ts");
    await showTop(context, request);
  },
});
