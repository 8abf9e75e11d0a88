/** One table that the guest's firmware reports (DMI). Several of one type complete each other. */
export interface SmbiosTable {
  type: number;
  /** In order; of type 11 there may be several `value`s. */
  fields: (readonly [name: string, value: string])[];
}

/** Fields of qemu's -smbios by type, without those that name a file of the host, and the UUID, which is the VM's own. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  0: ["vendor", "version", "date", "release", "uefi"],
  1: ["manufacturer", "product", "version", "serial", "sku", "family"],
  2: ["manufacturer", "product", "version", "serial", "asset", "location"],
  3: ["manufacturer", "version", "serial", "asset", "sku"],
  11: ["value"],
};

/** Fields that are no text. */
const FORMS: Readonly<Record<string, RegExp>> = { release: /^\d{1,3}\.\d{1,3}$/, uefi: /^(on|off)$/ };

const MAX_VALUE_BYTES = 4096;

export const SMBIOS_SYNTAX =
  "type=N,FIELD=VALUE,… as of qemu's -smbios, N one of 0 1 2 3 11, a comma in VALUE doubled: type=1,manufacturer=ACME,serial=7";

/**
 * Parses an item such as `type=1,manufacturer=ACME,serial=7`.
 * @returns what is allowed instead, where it is wrong
 */
export function parseSmbios(text: string): SmbiosTable | { allowed: string } {
  if (/\p{Cc}/u.test(text)) return { allowed: SMBIOS_SYNTAX };
  const [head, ...rest] = text
    .replaceAll(",,", "\0")
    .split(",")
    .map((word) => word.replaceAll("\0", ","));
  const type = /^type=(\d+)$/.exec(head ?? "")?.[1] ?? "";
  const known = Object.hasOwn(FIELDS, type) ? FIELDS[type]! : undefined;
  if (!known || rest.length === 0) return { allowed: SMBIOS_SYNTAX };
  const fields: SmbiosTable["fields"] = [];
  for (const word of rest) {
    const [, name = "", value = ""] = /^([a-z]+)=(.*)$/u.exec(word) ?? [];
    if (!known.includes(name)) return { allowed: `of type=${type} the fields ${known.join(" ")}` };
    if (value === "") return { allowed: `a value for ${name}` };
    if (FORMS[name]?.test(value) === false)
      return { allowed: name === "uefi" ? "uefi=on or uefi=off" : `${name}=N.N` };
    if (Buffer.byteLength(value) > MAX_VALUE_BYTES)
      return { allowed: `at most ${MAX_VALUE_BYTES} bytes a value` };
    if (name !== "value" && fields.some(([earlier]) => earlier === name)) return { allowed: `${name}= once` };
    fields.push([name, value]);
  }
  return { type: Number(type), fields };
}
