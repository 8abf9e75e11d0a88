import type { SharedDisplay } from "./types.ts";

/**
 * The file that opens a screen in `remote-viewer` (remote-viewer(1), "CONNECTION FILE"): also in one that
 * runs elsewhere, so far as it reaches the address.
 */
export function buildViewerFile(
  { kind, at, tls }: SharedDisplay,
  password: string | undefined,
  title: string,
): string {
  const address =
    "socket" in at ? socketAddress(kind, at.socket) : portAddress(at, tls ? "tls-port" : "port");
  const entries: Entries = [["type", kind], ...address];
  // The subject: the certificate may name another host than the one that is called, through a tunnel say.
  if (tls) entries.push(["ca", tls.ca], ["host-subject", tls.subject]);
  if (password !== undefined) entries.push(["password", password]);
  entries.push(["title", title.replaceAll(/\p{Cc}/gu, " ")]);
  return ["[virt-viewer]", ...entries.map(([key, value]) => `${key}=${keyFileValue(value)}`), ""].join("\n");
}

/** Where the tunnel to a socket begins, at home. */
export const TUNNEL = { host: "localhost", port: 5900 };

/** Where a server that listens on all addresses is found, here and behind a tunnel. */
export const reachable = (host: string): string => (/^(0\.0\.0\.0|::)$/.test(host) ? "localhost" : host);

type Entries = [key: string, value: string][];

const portAddress = ({ host, port }: { host: string; port: number }, name: string): Entries => [
  ["host", reachable(host)],
  [name, String(port)],
];

/** A VNC viewer cannot open a socket: its file is for the other end of a tunnel. */
const socketAddress = (kind: SharedDisplay["kind"], socket: string): Entries =>
  kind === "spice" ? [["unix-path", socket]] : portAddress(TUNNEL, "port");

/** A value in a key file (GKeyFile): backslashes, line ends and leading blanks are escaped. */
const keyFileValue = (text: string): string =>
  text
    .replaceAll("\\", String.raw`\\`)
    .replaceAll("\n", String.raw`\n`)
    .replace(/^ /, String.raw`\s`);
