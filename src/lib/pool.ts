/**
 * Does something for each item, several at a time. After a failure no further one is begun.
 * @throws the first failure, when all that were begun have ended
 */
export async function forEachItem<T>(
  items: readonly T[],
  width: number,
  use: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const failures: unknown[] = [];
  const work = async (): Promise<void> => {
    while (waiting.length > 0 && failures.length === 0)
      await use(waiting.shift()!).catch((error: unknown) => void failures.push(error));
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, work));
  if (failures.length > 0) throw failures[0];
}
