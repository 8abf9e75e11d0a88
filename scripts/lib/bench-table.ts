/** A table with a title; the first column is text, the others are right-aligned. */
export function printTable(title: string, rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => [...row[column]!].length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd();
  const [head = [], ...body] = rows;
  console.log(`\n${title}\n`);
  console.log(`  ${line(head)}\n  ${widths.map((width) => "-".repeat(width)).join("  ")}`);
  for (const row of body) console.log(`  ${line(row)}`);
}

export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** `12.3 ms` */
export const ms = (value: number): string => `${value.toFixed(1)} ms`;

/** A figure with its limit, marked where it is beyond that. */
export const within = (limit: string, holds: boolean): string => (holds ? limit : `NO: ${limit}`);

export const vm = process.env.VM_BINARY!;

/** Little, and nothing of the tester's own settings. */
export const environment = (scratch: string, path = process.env.PATH): Record<string, string> => ({
  PATH: path!,
  HOME: `${scratch}/home`,
  TMPDIR: scratch,
  LANG: "C.UTF-8",
});
