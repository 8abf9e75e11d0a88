import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { readNamed } from "../lib/read-file.ts";
import type { DisplayTls } from "../machine/types.ts";

/**
 * Reads what viewers are told of a server's certificates; qemu itself reads all three files.
 * @throws 66 when one cannot be read, 78 when the certificate is none
 */
export function readTls(directory: string): DisplayTls {
  const read = (name: string): string => {
    const path = join(directory, name);
    try {
      return readNamed(path).toString();
    } catch (error) {
      throw new VmError("noInput", `SPICE_TLS_DIR: cannot read ${path}: ${reasonOf(error)}`, {
        hint: "the directory holds ca-cert.pem, server-cert.pem and server-key.pem, in PEM",
      });
    }
  };
  read("server-key.pem");
  return { directory, ca: read("ca-cert.pem"), subject: subjectOf(read("server-cert.pem"), directory) };
}

/** `CN=host`, `O=Example` on lines of their own → `O=Example,CN=host`, as spice-gtk compares it. */
function subjectOf(pem: string, directory: string): string {
  const { X509Certificate } = process.getBuiltinModule("node:crypto");
  try {
    return new X509Certificate(pem).subject.trim().split("\n").join(",");
  } catch (error) {
    throw new VmError("config", `SPICE_TLS_DIR: ${join(directory, "server-cert.pem")} is no certificate`, {
      cause: error,
    });
  }
}
