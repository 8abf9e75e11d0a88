import { plain } from "./text.ts";

/** Aligned columns for people, two spaces between them; nothing trails. A line a row, whatever the cells hold. */
export function formatTable(table: readonly (readonly string[])[]): string {
  const rows = table.map((row) => row.map(plain));
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}
