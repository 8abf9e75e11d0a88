/** Identifiers that no other VM or snapshot has. */
import { randomBytes } from "./crypto.ts";

/** RFC 9562, canonical: lower-case hexadecimal digits in five groups. */
const FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export const isUuid = (value: unknown): value is string => typeof value === "string" && FORM.test(value);

export const newUuid = (): string => crypto.randomUUID();

/** 16 hexadecimal digits. */
export const newSnapshotId = (): string => randomBytes(8).toString("hex");
