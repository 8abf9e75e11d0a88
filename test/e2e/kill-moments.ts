import type { PointSink } from "./soak-lab.ts";
import { badSpeech, type Ran } from "./soak-speech.ts";

/** A command that is killed again and again. */
export interface Killed {
  /** The state before it. */
  load: () => Promise<void>;
  run: (kill?: { killAfter?: number; withChildren?: boolean }) => Promise<Ran>;
  /** Does everything hold together, and can the command be completed? */
  judge: () => Promise<string[]>;
}

/**
 * Kills a command so many times, spread over the time that it takes.
 * @param title of the points: `export:C:kill`
 * @param share of the kills that are of its children, too
 */
export async function killAtMoments(
  title: string,
  { load, run, judge }: Killed,
  { kills, random, share, point }: { kills: number; random: () => number; share: number; point: PointSink },
): Promise<void> {
  await load();
  const whole = await run();
  if (whole.status !== 0) throw new Error(`${title}: ${whole.stderr}`);
  for (let turn = 0; turn < kills; turn++) {
    const moment = (turn + random()) / kills;
    await load();
    const kill = { killAfter: moment * whole.seconds * 1000, withChildren: random() < share };
    const wrong = [...badSpeech(await run(kill)), ...(await judge())];
    point(`${title}:${turn}:${Math.round(moment * 100)}%`, wrong);
  }
}
