const UNITS: Record<string, bigint> = { "": 1n, K: 1n << 10n, M: 1n << 20n, G: 1n << 30n, T: 1n << 40n };

/**
 * Parses a size as qemu writes it: a whole number and an optional K, M, G or T (powers of 1024).
 * @param unit the unit of a bare number: `M` for memory (qemu's `-m`), nothing for bytes
 * @returns bytes, or undefined when the text is no positive size or too large to be exact
 */
export function parseSize(text: string, unit: "" | "M" = ""): number | undefined {
  const match = /^([0-9]{1,15})(?:([KMGT])(?:i?B)?|(B))?$/i.exec(text);
  if (!match) return undefined;
  const bytes = BigInt(match[1]!) * UNITS[match[3] ? "" : (match[2] ?? unit).toUpperCase()]!;
  return bytes > 0n && bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : undefined;
}

/** Bytes for people: `1.5 GiB`, `260 KiB`, `12 B`. */
export function formatSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  let unit = "";
  for (unit of ["KiB", "MiB", "GiB", "TiB"]) {
    value /= 1024;
    if (value < 1023.5) break;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}
