import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { readNamed } from "../lib/read-file.ts";
import type { DisplayTls } from "../machine/types.ts";

/**
 * Reads the CA certificate and the server's subject, for viewers; qemu itself reads all three files.
 * @throws 66 if one cannot be read, 78 if the certificate is invalid
 */
export function readTls(directory: string): DisplayTls {
  const read = (name: string): string => {
    const path = join(directory, name);
    try {
      return readNamed(path).toString();
    } catch (error) {
      throw new VmError("noInput", `SPICE_TLS_DIR: cannot read ${path}: ${reasonOf(error)}`, {
        hint: "the directory must contain ca-cert.pem, server-cert.pem and server-key.pem",
      });
    }
  };
  read("server-key.pem");
  return { directory, ca: read("ca-cert.pem"), subject: subjectOf(read("server-cert.pem"), directory) };
}

/** Joins lines such as `O=Example` and `CN=host` to `O=Example,CN=host`, the format that spice-gtk compares. */
function subjectOf(pem: string, directory: string): string {
  const { X509Certificate } = process.getBuiltinModule("node:crypto");
  try {
    return new X509Certificate(pem).subject.trim().split("\n").join(",");
  } catch (error) {
    throw new VmError("config", `SPICE_TLS_DIR: ${join(directory, "server-cert.pem")} is not a certificate`, {
      cause: error,
    });
  }
}
