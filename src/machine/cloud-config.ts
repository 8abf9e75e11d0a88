/** The NoCloud data source of cloud-init: docs.cloud-init.io, "Datasources: NoCloud". */

import type { Nic } from "./types.ts";

/** Volume label that cloud-init looks for. */
export const SEED_LABEL = "cidata";

/** Maximum length of a DNS label (RFC 1035); cloud-init uses the first label as host name. */
const MAX_LABEL = 63;
const MAX_NAME = 253;

/** Converts a VM's name to a host name (RFC 1123): `Mail server №1` → `mail-server-no1`. */
export function hostNameOf(guestName: string): string {
  const labels = guestName
    .normalize("NFKD")
    .toLowerCase()
    .replaceAll(/\p{M}/gu, "")
    .split(".")
    .map((label) =>
      label
        .replaceAll(/[^a-z0-9]+/g, "-")
        .replace(/^-/, "")
        .slice(0, MAX_LABEL)
        .replace(/-$/, ""),
    );
  const name = labels
    .filter(Boolean)
    .join(".")
    .slice(0, MAX_NAME)
    .replace(/[.-]+$/, "");
  return name || "vm";
}

/** JSON is YAML, except for characters that only YAML requires to be escaped (YAML 1.1, 5.1). */
const toYaml = (value: unknown): string =>
  JSON.stringify(value, undefined, 2).replaceAll(
    /[\u007F-\u009F\uFEFF\uFFFE\uFFFF]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** @param instanceId a new one makes cloud-init repeat its work of a first boot */
export const buildMetaData = (instanceId: string, hostName: string): string =>
  `${toYaml({ "instance-id": instanceId, "local-hostname": hostName })}\n`;

/** Configures each network card by DHCP, also the further ones (docs.cloud-init.io, "Networking config version 2"). */
export const buildNetworkConfig = (nics: readonly Pick<Nic, "number" | "mac">[]): string =>
  `${toYaml({
    version: 2,
    ethernets: Object.fromEntries(
      nics.flatMap(({ number, mac }) =>
        // Of several default routes, the first card's is used.
        mac === undefined
          ? []
          : [
              [
                `card${number}`,
                {
                  match: { macaddress: mac },
                  dhcp4: true,
                  "dhcp4-overrides": { "route-metric": 100 * number },
                },
              ],
            ],
      ),
    ),
  })}\n`;

/**
 * Authorises SSH keys, without a password.
 * @param user absent: the default user of the image
 */
export function buildUserData(user: string | undefined, keys: readonly string[]): string {
  return `#cloud-config\n${toYaml(usersOf(user, keys))}\n`;
}

function usersOf(user: string | undefined, keys: readonly string[]): object {
  const ssh_authorized_keys = keys;
  if (user === undefined) return { ssh_authorized_keys };
  // Otherwise a login as root only prints which user to use instead.
  if (user === "root") return { disable_root: false, users: [{ name: user, ssh_authorized_keys }] };
  const rights = { sudo: "ALL=(ALL) NOPASSWD:ALL", shell: "/bin/bash", lock_passwd: true };
  return { users: [{ name: user, ...rights, ssh_authorized_keys }] };
}

/** First lines of user-data (docs.cloud-init.io, "User-data formats"), which may also be compressed by gzip. */
const USER_DATA =
  /^(#cloud-config|#cloud-config-archive|#cloud-boothook|#!|#include|#include-once|#part-handler|#upstart-job|## template:|content-type:|mime-version:)/i;
const GZIP = [0x1f, 0x8b];
const BOM = [0xef, 0xbb, 0xbf];

/** Pure: why cloud-init, or some version of it, ignores user-data; undefined if it is valid. */
export function findUserDataProblem(bytes: Uint8Array): string | undefined {
  const starts = (magic: readonly number[]): boolean => magic.every((byte, index) => bytes[index] === byte);
  if (starts(GZIP)) return undefined;
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  if (text.trim() === "") return "it is empty";
  if (starts(BOM)) return "it begins with a byte order mark (BOM)";
  if (USER_DATA.test(text)) return undefined;
  if (USER_DATA.test(text.trimStart()))
    return "its first line is blank: #cloud-config (or #!…) must be the very first";
  return "its first line is not #cloud-config, #!… or another word that cloud-init knows";
}
