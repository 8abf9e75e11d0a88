import { version } from "../../package.json";

/** The program's version. */
export const programVersion = (): string => version;
