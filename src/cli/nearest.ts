/** Levenshtein's distance between two short words. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}

/** The choice that is most like `word`, if any is like it at all. */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  if (word.length > 30) return undefined;
  const ranked = choices
    .map((choice) => ({ choice, cost: choice.startsWith(word) ? 0 : distance(word.toLowerCase(), choice) }))
    .toSorted((a, b) => a.cost - b.cost);
  const best = ranked[0];
  return best && best.cost <= Math.max(1, Math.floor(best.choice.length / 2)) ? best.choice : undefined;
}
