/** Everything a terminal could be steered with, but colours. */
// oxlint-disable-next-line no-control-regex
const STEERING = /\x1b\[[0-9;]*m|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]/g;

/** Leaves colours in a job's words, and nothing else that steers a terminal. */
export const tameText = (text: string): string =>
  text.replaceAll(STEERING, (match) => (match.length > 1 ? match : match === "\x1b" ? "^[" : "?"));

/** Writes a job's log on stdout, as fast as whoever reads there takes it. */
export function createLogWriter(): (piece: Uint8Array) => Promise<void> {
  const decoder = process.stdout.isTTY ? new TextDecoder() : undefined;
  let gone = false;
  return (piece) => {
    if (gone) return Promise.resolve();
    const text = decoder ? tameText(decoder.decode(piece, { stream: true })) : piece;
    return new Promise((resolve) => {
      process.stdout.write(text, (error) => {
        // The reader has left (`| head`); the job goes on.
        if (error) gone = true;
        resolve();
      });
    });
  };
}
