/** Edits between two short words: letters added, lost, changed, or swapped with their neighbour. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= a.length; i++) {
    const [above, row] = [rows[i - 1]!, [i]];
    for (let j = 1; j <= b.length; j++) {
      const changed = above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row[j] = Math.min(
        above[j]! + 1,
        row[j - 1]! + 1,
        changed,
        swapped ? rows[i - 2]![j - 2]! + 1 : Infinity,
      );
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** Pure: is one the other with one letter added, lost, changed, or swapped with its neighbour? */
export const isOneEditFrom = (a: string, b: string): boolean => distance(a, b) === 1;

/** The choice that is most like `word`, if any is like it at all. */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  if (word === "" || word.length > 30) return undefined;
  const lower = word.toLowerCase();
  return choices
    .map((choice) => ({ choice, cost: choice.startsWith(lower) ? 0 : distance(lower, choice) }))
    .filter(({ choice, cost }) => cost <= Math.max(1, Math.floor(choice.length / 2)))
    .toSorted((a, b) => a.cost - b.cost)[0]?.choice;
}

/** Start of a hint; empty if no choice is similar to the word. */
export function didYouMean(word: string, choices: readonly string[]): string {
  const choice = nearest(word, choices);
  return choice === undefined ? "" : `did you mean '${choice}'? `;
}
