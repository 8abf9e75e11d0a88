/** The NoCloud data source of cloud-init: docs.cloud-init.io, "Datasources: NoCloud". */

/** The label by which cloud-init knows the volume. */
export const SEED_LABEL = "cidata";

/** DNS allows so much for one label (RFC 1035), cloud-init takes the first one for the host's name. */
const MAX_LABEL = 63;
const MAX_NAME = 253;

/** A host name (RFC 1123) as near to a VM's name as can be: `Mail server №1` → `mail-server-no1`. */
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

/** JSON is YAML, but for characters that YAML wants escaped and JSON does not (YAML 1.1, 5.1). */
const toYaml = (value: unknown): string =>
  JSON.stringify(value, undefined, 2).replaceAll(
    /[\u007F-\u009F\uFEFF\uFFFE\uFFFF]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** @param instanceId another one makes cloud-init do its work of a first boot once more */
export const buildMetaData = (instanceId: string, hostName: string): string =>
  `${toYaml({ "instance-id": instanceId, "local-hostname": hostName })}\n`;

/**
 * Lets these keys in, and nobody by a password.
 * @param user absent: the one that the image itself makes
 */
export function buildUserData(user: string | undefined, keys: readonly string[]): string {
  return `#cloud-config\n${toYaml(usersOf(user, keys))}\n`;
}

function usersOf(user: string | undefined, keys: readonly string[]): object {
  const ssh_authorized_keys = keys;
  if (user === undefined) return { ssh_authorized_keys };
  // Otherwise root's keys only tell whom to log in as instead.
  if (user === "root") return { disable_root: false, users: [{ name: user, ssh_authorized_keys }] };
  const rights = { sudo: "ALL=(ALL) NOPASSWD:ALL", shell: "/bin/bash", lock_passwd: true };
  return { users: [{ name: user, ...rights, ssh_authorized_keys }] };
}

/** What user-data may begin with (docs.cloud-init.io, "User-data formats"); compressed by gzip besides. */
const USER_DATA =
  /^(#cloud-config|#cloud-config-archive|#cloud-boothook|#!|#include|#include-once|#part-handler|#upstart-job|## template:|content-type:|mime-version:)/i;
const GZIP = [0x1f, 0x8b];
const BOM = [0xef, 0xbb, 0xbf];

/** Pure: why cloud-init makes nothing of user-data, or only some versions do; undefined where it is in order. */
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
