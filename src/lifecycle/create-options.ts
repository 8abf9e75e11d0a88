import { badOption } from "../config/complaint.ts";
import { parseSetting } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { usageError } from "../lib/errors.ts";
import { parseSize } from "../lib/size.ts";

/** What `create` is asked for besides the name and the CD, checked. */
export interface CreateOptions {
  from: FromRequest | undefined;
  cloudInit: CloudInitRequest | undefined;
  /** `TYPE=[FMT=]PATH`: further disks, kept in guest.env. */
  images: string[];
}

/** The first disk comes from an image. */
export interface FromRequest {
  /** As typed. */
  image: string;
  /** Only what differs is kept; the image has to stay. */
  linked: boolean;
  /** The disk's size, where it was given. */
  sizeBytes: number | undefined;
}

/** What the guest's cloud-init is told. */
export interface CloudInitRequest {
  /** Absent: the one that the image itself would make. */
  user: string | undefined;
  /** A file of the caller's own, as typed, instead of what we would write. */
  userData: string | undefined;
}

/** useradd(8) takes these, and so does a line of sudoers. */
const USER_NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/;

/**
 * Understands the options of `create`.
 * @throws 64 for a bad value, and for options that make no sense together
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
      `to keep only what differs from IMAGE: ${commandLine("create", "NAME", "--linked", "--from=IMAGE")}`,
    );
  if (image === undefined && size !== undefined)
    throw usageError(
      "create: --disk-size needs --from",
      `the size of an empty disk: ${commandLine("create", "NAME", `--disks=AHCI=${size}`)}`,
    );
  const sizeBytes = size === undefined ? undefined : parseSize(size);
  if (size !== undefined && sizeBytes === undefined)
    throw usageError(`--disk-size: '${size}' is not allowed`, "allowed: a size like 30G or 512M");
  const user = text("user");
  const userData = text("user-data");
  if (user !== undefined && userData !== undefined)
    throw usageError("create: --user and --user-data do not go together", "name the user in your user-data");
  if (user !== undefined && !USER_NAME.test(user))
    throw usageError(
      `--user: '${user}' is not allowed`,
      "allowed: at most 32 letters, digits and . _ -, beginning with a letter",
    );
  const images = ((args.image as string[] | undefined) ?? []).filter((item) => item !== "");
  const parsed = parseSetting("IMAGES", images);
  if (!("value" in parsed)) {
    const { given = images.join(" "), allowed, meant } = parsed;
    const name = (args.guestname as string | undefined) ?? "NAME";
    const line = meant === undefined ? undefined : commandLine("create", name, `--image=${meant}`);
    throw badOption("--image", given, allowed, line);
  }
  const told = args["cloud-init"] === true || user !== undefined || userData !== undefined;
  return {
    from: image === undefined ? undefined : { image, linked: args.linked === true, sizeBytes },
    cloudInit: told ? { user, userData } : undefined,
    images,
  };
}
