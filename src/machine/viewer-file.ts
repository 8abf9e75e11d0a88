import type { SharedDisplay } from "./types.ts";

/**
 * A connection file for `remote-viewer` (remote-viewer(1), "CONNECTION FILE"), also for one on another machine that can
 * reach the address.
 */
export function buildViewerFile(
  { kind, at, tls }: SharedDisplay,
  password: string | undefined,
  title: string,
): string {
  const address =
    "socket" in at ? socketAddress(kind, at.socket) : portAddress(at, tls ? "tls-port" : "port");
  const entries: Entries = [["type", kind], ...address];
  // The subject is needed if the certificate names another host than the one connected to, as through a tunnel.
  if (tls) entries.push(["ca", tls.ca], ["host-subject", tls.subject]);
  if (password !== undefined) entries.push(["password", password]);
  entries.push(["title", title.replaceAll(/\p{Cc}/gu, " ")]);
  return ["[virt-viewer]", ...entries.map(([key, value]) => `${key}=${keyFileValue(value)}`), ""].join("\n");
}

/** The local end of a tunnel to a socket. */
export const TUNNEL = { host: "localhost", port: 5900 };

/** Address to connect to if a server listens on all addresses, locally or through a tunnel. */
export const reachable = (host: string): string => (/^(0\.0\.0\.0|::)$/.test(host) ? "localhost" : host);

type Entries = [key: string, value: string][];

const portAddress = ({ host, port }: { host: string; port: number }, name: string): Entries => [
  ["host", reachable(host)],
  [name, String(port)],
];

/** A VNC viewer cannot open a unix socket: its file is for the local end of a tunnel. */
const socketAddress = (kind: SharedDisplay["kind"], socket: string): Entries =>
  kind === "spice" ? [["unix-path", socket]] : portAddress(TUNNEL, "port");

/** A value in a key file (GKeyFile): backslashes, line ends and leading blanks are escaped. */
const keyFileValue = (text: string): string =>
  text
    .replaceAll("\\", String.raw`\\`)
    .replaceAll("\n", String.raw`\n`)
    .replace(/^ /, String.raw`\s`);
