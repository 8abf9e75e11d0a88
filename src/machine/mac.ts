import { sha256 } from "../lib/crypto.ts";

/** Unicast, six bytes, lower case. */
const FORM = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/;

/** Parses a MAC address of a network card; undefined for a malformed one, a group's, and zero. */
export function parseMac(text: string): string | undefined {
  const mac = text.toLowerCase();
  return FORM.test(mac) && mac !== "00:00:00:00:00:00" ? mac : undefined;
}

/**
 * The MAC address of a VM's card: locally administered (IEEE 802, second lowest bit of the first byte), 46 bits by hash.
 * The result for a UUID never changes: guests and DHCP servers identify the machine by it.
 * @param card from 1
 */
export function deriveMac(uuid: string, card: number): string {
  const digits = sha256(`${uuid} nic ${card}`).slice(0, 12);
  const first = ((Number.parseInt(digits.slice(0, 2), 16) & 0xfc) | 0x02).toString(16).padStart(2, "0");
  return [first, ...digits.slice(2).match(/../g)!].join(":");
}
