/** A line of sha256sum(1); it begins with `\\` where the name had to be escaped (coreutils manual, "md5sum invocation"). */
export interface SumLine {
  /** 64 hexadecimal digits. */
  sum: string;
  name: string;
}

const PLAIN = /^(?<escaped>\\?)(?<sum>[0-9a-f]{64}) [ *](?<name>.+)$/;
/** As `--tag` writes it. */
const TAGGED = /^(?<escaped>\\?)SHA256 \((?<name>.+)\) = (?<sum>[0-9a-f]{64})$/;

/** @returns undefined for anything else, and for a name with a line end in it */
export const parseSumLine = (line: string): SumLine | undefined => parseBy(PLAIN, line);

export const parseTaggedSumLine = (line: string): SumLine | undefined => parseBy(TAGGED, line);

function parseBy(pattern: RegExp, line: string): SumLine | undefined {
  const { escaped, sum, name: written } = pattern.exec(line)?.groups ?? {};
  if (sum === undefined || written === undefined) return undefined;
  const name = escaped ? unescape(written) : written.includes("\\") ? undefined : written;
  return name === undefined ? undefined : { sum, name };
}

const unescape = (name: string): string | undefined =>
  /^(?:[^\\]|\\\\)+$/.test(name) ? name.replaceAll("\\\\", "\\") : undefined;

export const formatSumLine = ({ sum, name }: SumLine): string =>
  name.includes("\\") ? `\\${sum}  ${name.replaceAll("\\", "\\\\")}\n` : `${sum}  ${name}\n`;
