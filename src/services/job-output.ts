import { tameText } from "../lib/text.ts";

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
