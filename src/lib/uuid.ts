/** Identifiers that no other VM or snapshot has. */
import { randomBytes, sha256 } from "./crypto.ts";

/** RFC 9562, canonical: lower-case hexadecimal digits in five groups. */
const FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export const isUuid = (value: unknown): value is string => typeof value === "string" && FORM.test(value);

export const newUuid = (): string => crypto.randomUUID();

/** The UUID of a text: always the same (RFC 9562, version 8). */
export function deriveUuid(text: string): string {
  const digits = sha256(text);
  const variant = ((Number.parseInt(digits[16]!, 16) & 3) | 8).toString(16);
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `8${digits.slice(13, 16)}`,
    `${variant}${digits.slice(17, 20)}`,
    digits.slice(20, 32),
  ].join("-");
}

/** 16 hexadecimal digits. */
export const newSnapshotId = (): string => randomBytes(8).toString("hex");
