import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Configuration of dnsmasq(8): a DHCP server with fixed leases only, and a DNS server that knows the members. */
export function formatDnsmasqConfig(
  {
    name,
    directory,
    prefix,
    outside,
  }: { name: string; directory: string; prefix: string; outside: "on" | "off" },
  { leases, hosts, pid }: { leases: string; hosts: string; pid: string },
): string {
  const lines = [
    "user=root",
    "group=",
    `pid-file="${join(directory, pid)}"`,
    "interface=br0",
    "except-interface=lo",
    "bind-interfaces",
    "no-hosts",
    "no-poll",
    "leasefile-ro",
    "dhcp-authoritative",
    "no-ping",
    `dhcp-range=${prefix}.0,static,255.255.255.0`,
    `dhcp-hostsdir="${join(directory, leases)}"`,
    `hostsdir="${join(directory, hosts)}"`,
    `domain=${name}`,
    `local=/${name}/`,
    "domain-needed",
    "expand-hosts",
    "bogus-priv",
    // Empty: without a router.
    ...(outside === "on" ? [`resolv-file=${resolvFile()}`] : ["no-resolv", "dhcp-option=3"]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

/** With systemd-resolved, /etc/resolv.conf names an address of this host only (systemd-resolved.service(8)). */
const RESOLVED = "/run/systemd/resolve/resolv.conf";

function readServers(path: string): string[] {
  try {
    return [...readFileSync(path, "utf8").matchAll(/^nameserver\s+(\S+)/gm)].map(([, server]) => server!);
  } catch {
    return [];
  }
}

const isHere = (server: string): boolean => /^(127\.|::1$)/.test(server);

function resolvFile(): string {
  const file = "/etc/resolv.conf";
  return readServers(file).every(isHere) && readServers(RESOLVED).length > 0 ? RESOLVED : file;
}

export function makeDirectories(
  directory: string,
  { leases, hosts }: { leases: string; hosts: string },
): void {
  for (const name of [leases, hosts]) mkdirSync(join(directory, name), { mode: 0o700 });
}
