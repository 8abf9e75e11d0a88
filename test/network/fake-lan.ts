/** A network's programs as short scripts on PATH. */
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { RuntimePlace } from "../../src/network/place.ts";
import { Temp } from "../fixtures/temp.ts";

/** What the network's process says, without namespaces: fake-lan's `unshare`, in place of scripts/network/lan.sh. */
const ANSWER = `echo "$*" >>starts
echo $$ >ready.new
mv ready.new ready
while read -r word; do
  echo "$word" >answer.new
  mv answer.new answer
done`;

const DESCRIPTORS = join(import.meta.dir, "../../src/process/descriptors.ts");

/** Sends a file of this content instead of a tap device; says in `entered` whom it was to enter. */
const send = (temp: Temp): string => `echo "$*" >>'${temp.path("entered")}'
exec '${process.execPath}' -e '
  const { sendDescriptor } = await import("${DESCRIPTORS}");
  sendDescriptor(3, Buffer.from("\\0"), require("node:fs").openSync("${temp.write("card", "a card")}"));'`;

/** A temporary directory with `bin` first on PATH until disposal. */
export class FakeLan extends Temp {
  readonly #path = process.env.PATH;
  readonly place: RuntimePlace & { cacheDirectory: string };
  /** Of the network `lab`. */
  readonly lab: string;

  constructor() {
    super();
    this.place = {
      env: { XDG_RUNTIME_DIR: this.directory("run") },
      tmpdir: "/nowhere",
      cacheDirectory: this.directory("cache"),
    };
    this.lab = this.path("run/vm/networks/lab");
    for (const name of ["ip", "dnsmasq", "pasta", "nft"]) this.program(name, "exit 99");
    this.program("unshare", ANSWER);
    this.program("nsenter", send(this));
    process.env.PATH = `${this.path("bin")}:${this.#path}`;
  }

  program(name: string, script: string): void {
    chmodSync(this.write(`bin/${name}`, `#!/bin/sh\n${script}\n`), 0o700);
  }

  /** PATH is this `bin` alone. */
  onlyThese(): void {
    process.env.PATH = this.path("bin");
  }

  read(file: string): string {
    return readFileSync(join(this.lab, file), "utf8");
  }

  /** Settles when the network has ended: its lock is free then. */
  async ended(): Promise<void> {
    await Bun.spawn(["flock", join(this.lab, "alive"), "true"]).exited;
  }

  override [Symbol.dispose](): void {
    process.env.PATH = this.#path;
    super[Symbol.dispose]();
  }
}
