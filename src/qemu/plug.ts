/** What `device_add` is told: of which device, and its properties. */
export type Plugged = { driver: string } & Record<string, string>;

/**
 * qemu takes no state into a machine with an NVMe disk; once it has taken it, such a disk can be plugged in.
 * @returns the command without them, and what `device_add` is to be told
 */
export function splitPlugged(whole: readonly string[]): {
  argv: string[];
  plugged: Plugged[];
} {
  const argv: string[] = [];
  const plugged: Plugged[] = [];
  for (let at = 0; at < whole.length; at++) {
    const [word = "", value = ""] = whole.slice(at, at + 2);
    if (word === "-device" && value.startsWith("nvme,")) {
      const pairs = value
        .split(",")
        .slice(1)
        .map((pair) => pair.split("=") as [string, string]);
      const { bootindex: _unused, ...properties } = Object.fromEntries(pairs);
      // The root bus of a q35 takes nothing while it runs; a port on it does.
      const port = `port${plugged.length}`;
      argv.push("-device", `pcie-root-port,id=${port},chassis=${plugged.length + 1}`);
      plugged.push({ driver: "nvme", ...properties, bus: port });
      at++;
    } else argv.push(word);
  }
  return { argv, plugged };
}
