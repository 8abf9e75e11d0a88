import { expect, test } from "bun:test";
import { filterLinks, relaySftp } from "../../src/files/sftp-relay.ts";
import { buildDenied, buildName, readLinkName, SFTP } from "../../src/files/sftp-packets.ts";
import { adoptSocket } from "../../src/process/unix-socket.ts";
import { LineServer, type Client } from "../fixtures/qemu/line-server.ts";
import { Temp } from "../fixtures/temp.ts";

const TOP = "/run/files/0";

/** A packet with one text: a request for a path, or data. */
function packet(type: number, id: number, text: string): Buffer {
  const bytes = Buffer.alloc(13 + text.length);
  bytes.writeUInt32BE(9 + text.length);
  bytes[4] = type;
  bytes.writeUInt32BE(id, 5);
  bytes.writeUInt32BE(text.length, 9);
  bytes.write(text, 13, "latin1");
  return bytes;
}
const DATA = 103;

/** What sshfs gets, if all comes in pieces of this size. */
function exchange(requests: Buffer[], replies: Buffer[], pieceBytes: number): Buffer {
  const filter = filterLinks(TOP, "/");
  const push = (stream: typeof filter.replies, packets: Buffer[]): Buffer => {
    const all = Buffer.concat(packets);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < all.length; at += pieceBytes)
      pieces.push(...stream.push(all.subarray(at, at + pieceBytes)).map((piece) => Buffer.from(piece)));
    return Buffer.concat(pieces);
  };
  expect(push(filter.requests, requests).equals(Buffer.concat(requests))).toBe(true);
  return push(filter.replies, replies);
}

const readlink = (id: number, path: string): Buffer => packet(SFTP.readlink, id, path);

test.each([1, 7, 9, 4096])(
  "targets are replaced or refused, all else is as it was; in pieces of %d bytes",
  (size) => {
    const data = packet(DATA, 3, "\0\x13../../etc\xff".repeat(999));
    const listing = buildName(4, "../../../etc");
    const requests = [
      readlink(1, `${TOP}/srv/out`),
      readlink(2, `${TOP}/srv/odd`),
      packet(SFTP.readdir, 4, "handle"),
      readlink(5, "/etc/elsewhere"),
      readlink(6, `${TOP}/gone`),
    ];
    const replies = [
      data,
      buildName(2, "x/../../.."),
      listing,
      buildName(1, "../../../etc/\xffx"),
      buildName(5, "x"),
      buildDenied(6),
    ];
    expect(exchange(requests, replies, size)).toEqual(
      Buffer.concat([
        data,
        buildDenied(2),
        listing,
        buildName(1, "../etc/\xffx"),
        buildDenied(5),
        buildDenied(6),
      ]),
    );
  },
);

test.each([
  ["an answer to a request that was not seen yet", [], [buildName(9, "../../etc")]],
  ["two answers to one request", [readlink(1, `${TOP}/a`)], [buildName(1, "b"), buildName(1, "../../etc")]],
  ["a packet without an id", [], [Buffer.from([0, 0, 0, 1, SFTP.name, 0, 0, 0, 1])]],
  ["an endless name", [readlink(1, `${TOP}/a`)], [Buffer.from([255, 0, 0, 0, SFTP.name, 0, 0, 0, 1])]],
  ["a name that is cut off", [readlink(1, `${TOP}/a`)], [packet(SFTP.name, 1, "")]],
])("refuses %s", (_what, requests, replies) => {
  expect(() => exchange(requests, replies, 4096)).toThrow();
});

test("the relay is between sshfs and the server, in both directions; each end closes the other", async () => {
  using temp = new Temp();
  const got: Buffer[] = [];
  const connected = Promise.withResolvers<Client>();
  const server = new LineServer(temp.path("files.sock"), {
    opened: connected.resolve,
    data: (bytes) => void got.push(Buffer.from(bytes)),
  });
  const { fd } = await relaySftp(temp.path("files.sock"), filterLinks(TOP, "/"));
  const closed = Promise.withResolvers<void>();
  const heard: Buffer[] = [];
  const enough = Promise.withResolvers<void>();
  const big = packet(DATA, 7, "x".repeat(5_000_000));
  const wanted = Buffer.concat([buildName(1, "etc"), big]);
  const sshfs = await adoptSocket(fd, {
    data: (_socket, bytes) => {
      heard.push(Buffer.from(bytes));
      if (heard.reduce((sum, { length }) => sum + length, 0) >= wanted.length) enough.resolve();
    },
    close: () => closed.resolve(),
  });
  sshfs.write(readlink(1, `${TOP}/out`));
  const client = await connected.promise;
  while (got.length === 0) await Bun.sleep(1);
  client.send(new Uint8Array(Buffer.concat([buildName(1, "/etc"), big])));
  await enough.promise;
  expect(Buffer.concat(heard).equals(wanted)).toBe(true);
  expect(readLinkName(Buffer.concat(heard).subarray(0, buildName(1, "etc").length))).toBe("etc");
  expect<Uint8Array>(Buffer.concat(got)).toEqual(readlink(1, `${TOP}/out`));
  server.stop();
  await closed.promise;
});
