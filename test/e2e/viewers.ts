/** Real viewers, for the end-to-end tests. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inflateSync } from "node:zlib";
import { QmpClient } from "../../src/qmp/client.ts";
import { until, type Sandbox } from "./harness.ts";

/** A virtual X server. */
export class Desktop implements Disposable {
  private constructor(
    private readonly server: Bun.Subprocess,
    /** For DISPLAY. */
    readonly name: string,
  ) {}

  static async start(): Promise<Desktop> {
    const server = Bun.spawn(["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "1024x768x24"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const { value } = await server.stdout.getReader().read();
    return new Desktop(server, `:${new TextDecoder().decode(value).trim()}`);
  }

  [Symbol.dispose](): void {
    this.server.kill();
  }
}

/** A decoded picture: three bytes per pixel. */
export interface Picture {
  width: number;
  height: number;
  pixels: Buffer;
}

/** Decodes a PNG of the program: RGB, one IDAT, no filters. */
export function readPng(png: Buffer): Picture {
  if (png.subarray(1, 4).toString() !== "PNG") throw new Error("no PNG");
  const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  const at = png.indexOf("IDAT");
  const rows = inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)));
  const stride = width * 3 + 1;
  const pixels = Buffer.concat(
    Array.from({ length: height }, (_, y) => rows.subarray(y * stride + 1, (y + 1) * stride)),
  );
  return { width, height, pixels };
}

export function readPpm(ppm: Buffer): Picture {
  const head = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(ppm.subarray(0, 40).toString("latin1"))!;
  return { width: +head[1]!, height: +head[2]!, pixels: ppm.subarray(head[0].length) };
}

/** The fraction of bytes that differ between two pictures of one size, as a cursor may blink. */
export function difference(a: Picture, b: Picture): number {
  if (a.width !== b.width || a.height !== b.height) return 1;
  return a.pixels.filter((byte, index) => byte !== b.pixels[index]).length / a.pixels.length;
}

/** Runs a client until it exits. */
async function client(argv: string[], box: Sandbox): Promise<{ status: number; said: string }> {
  const child = Bun.spawn(argv, {
    cwd: box.top,
    env: box.env(),
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  return { status: child.exitCode ?? -1, said: out + err };
}

/** spice-gtk's own client: the screen, or its output. */
export async function spicePicture(
  box: Sandbox,
  address: string[],
  password: string,
): Promise<Picture | string> {
  const file = join(box.top, "spicy.ppm");
  await Bun.file(file)
    .unlink()
    .catch(() => {});
  const { said } = await client(
    ["spicy-screenshot", ...address, `--password=${password}`, `--out-file=${file}`],
    box,
  );
  return (await Bun.file(file).exists()) ? readPpm(readFileSync(file)) : said;
}

/** vncsnapshot: the size of the screen, or its output. */
export async function vncPicture(box: Sandbox, display: string, password: string): Promise<string> {
  const secret = join(box.top, "vnc.passwd");
  // Its file is the password, encrypted with a well-known key.
  const key = "e84ad660c4721ae0".repeat(3);
  const bytes = Buffer.alloc(8);
  bytes.write(password);
  const { stdout } = Bun.spawnSync(["openssl", "enc", "-des-ede3", "-K", key, "-nopad"], { stdin: bytes });
  writeFileSync(secret, stdout);
  const file = join(box.top, "vnc.jpg");
  await Bun.file(file)
    .unlink()
    .catch(() => {});
  const { said } = await client(["vncsnapshot", "-passwd", secret, display, file], box);
  if (!(await Bun.file(file).exists())) return said;
  const jpeg = readFileSync(file);
  // The frame header (SOF0) has height and width.
  const at = jpeg.indexOf(Buffer.of(0xff, 0xc0));
  return `${jpeg.readUInt16BE(at + 7)}x${jpeg.readUInt16BE(at + 5)}`;
}

/** Queries the guest's qemu. */
export async function qmp(box: Sandbox, question: string): Promise<any> {
  const conversation = await QmpClient.connect(join(box.work, "qmp.sock"));
  try {
    return await conversation.executeUntyped(question);
  } finally {
    conversation.close();
  }
}

/** Connected viewers: SPICE's channels, and VNC's clients. */
async function countViewers(box: Sandbox): Promise<{ channels: number; clients: number }> {
  const [spice, vnc] = [await qmp(box, "query-spice"), await qmp(box, "query-vnc")];
  return { channels: spice.channels?.length ?? 0, clients: vnc.clients?.length ?? 0 };
}

export async function viewersOf(box: Sandbox): Promise<number> {
  const { channels, clients } = await countViewers(box);
  return channels + clients;
}

/** A viewer's main, display, inputs and cursor. */
const SPICE_CHANNELS = 4;

/**
 * Waits until a viewer is connected completely: one that disconnects earlier makes spice-server 0.15 fail
 * (SIGSEGV in its worker), and qemu with it.
 */
export const untilSeen = (box: Sandbox): Promise<unknown> =>
  until("a viewer that was let in", async () => {
    const { channels, clients } = await countViewers(box);
    return channels >= SPICE_CHANNELS || clients > 0;
  });
