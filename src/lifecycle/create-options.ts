import { badOption } from "../config/complaint.ts";
import { parseSetting } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { usageError } from "../lib/errors.ts";
import { DISK_SIZES, parseDiskSize } from "../machine/parse.ts";

/** Options of `create`, checked. */
export interface CreateOptions {
  from: FromRequest | undefined;
  cloudInit: CloudInitRequest | undefined;
  /** `TYPE=[FMT=]PATH`: further disks, written to guest.env. */
  images: string[];
}

/** The image that the first disk is created from. */
export interface FromRequest {
  /** Path, as on the command line. */
  image: string;
  /** Create an overlay with the image as backing file, not a copy. */
  linked: boolean;
  /** Virtual size of the disk. */
  sizeBytes: number | undefined;
}

/** Options for the guest's cloud-init. */
export interface CloudInitRequest {
  /** Absent: the image's default user. */
  user: string | undefined;
  /** Path of a user-data file, as on the command line; absent: generate it. */
  userData: string | undefined;
}

/** Valid for useradd(8) and in sudoers(5). */
const USER_NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/;

/**
 * Parses the options of `create`.
 * @throws 64 for invalid values, and for options that exclude each other
 */
export function parseCreateOptions(args: Record<string, unknown>): CreateOptions {
  const text = (name: string): string | undefined => args[name] as string | undefined;
  for (const name of ["from", "disk-size", "user", "user-data"])
    if (text(name) === "") throw usageError(`create: --${name} has no value`, commandLine("create", "-h"));
  const image = text("from");
  const size = text("disk-size");
  if (image === undefined && args.linked === true)
    throw usageError(
      "create: --linked needs --from",
      `create an overlay on IMAGE: ${commandLine("create", "NAME", "--linked", "--from=IMAGE")}`,
    );
  if (image === undefined && size !== undefined)
    throw usageError(
      "create: --disk-size needs --from",
      `set the size of an empty disk: ${commandLine("create", "NAME", `--disks=AHCI=${size}`)}`,
    );
  const sizeBytes = size === undefined ? undefined : parseDiskSize(size);
  if (size !== undefined && sizeBytes === undefined)
    throw usageError(
      `--disk-size: '${size}' is not allowed`,
      `allowed: a size like 30G or 512M, ${DISK_SIZES}`,
    );
  const user = text("user");
  const userData = text("user-data");
  if (user !== undefined && userData !== undefined)
    throw usageError("create: --user and --user-data exclude each other", "set the user in your user-data");
  if (user !== undefined && !USER_NAME.test(user))
    throw usageError(
      `--user: '${user}' is not allowed`,
      "allowed: at most 32 letters, digits and . _ -, starting with a letter",
    );
  const images = ((args.image as string[] | undefined) ?? []).filter((item) => item !== "");
  const parsed = parseSetting("IMAGES", images);
  if (!("value" in parsed)) {
    const { given = images.join(" "), allowed, meant } = parsed;
    const name = (args.guestname as string | undefined) ?? "NAME";
    const line = meant === undefined ? undefined : commandLine("create", name, `--image=${meant}`);
    throw badOption("--image", given, allowed, line);
  }
  const wantsCloudInit = args["cloud-init"] === true || user !== undefined || userData !== undefined;
  return {
    from: image === undefined ? undefined : { image, linked: args.linked === true, sizeBytes },
    cloudInit: wantsCloudInit ? { user, userData } : undefined,
    images,
  };
}
