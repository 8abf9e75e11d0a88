/** Just enough of a terminal to show what our program prints: SGR colours, \r, and "erase to the end of the line". */

export interface Cell {
  char: string;
  /** 0 to 15, as in SGR 30–37 and 90–97. */
  colour: number | undefined;
  bold: boolean;
}

export class Terminal {
  readonly lines: Cell[][] = [[]];
  #column = 0;
  #colour: number | undefined;
  #bold = false;

  constructor(readonly columns: number) {}

  write(text: string): void {
    for (const [piece, parameters, final] of text.matchAll(/\x1b\[([\d;?]*)([A-Za-z])|[^]/gu)) {
      if (final === "m") this.#setColours(parameters!);
      else if (final === "K") this.lines.at(-1)!.length = Math.min(this.#column, this.lines.at(-1)!.length);
      else if (piece === "\r") this.#column = 0;
      else if (piece === "\n") this.#newLine();
      else if (final === undefined) this.#put(piece);
    }
  }

  #newLine(): void {
    this.lines.push([]);
    this.#column = 0;
  }

  #put(char: string): void {
    if (this.#column === this.columns) this.#newLine();
    this.lines.at(-1)![this.#column++] = { char, colour: this.#colour, bold: this.#bold };
  }

  #setColours(parameters: string): void {
    for (const code of parameters.split(";").map(Number)) {
      if (code === 0) this.#bold = false;
      if (code === 0 || code === 39) this.#colour = undefined;
      if (code === 1) this.#bold = true;
      if (code === 22) this.#bold = false;
      if (code >= 30 && code <= 37) this.#colour = code - 30;
      if (code >= 90 && code <= 97) this.#colour = code - 82;
    }
  }
}

const PALETTE = (
  "#6e7681 #ff7b72 #7ee787 #e3b341 #79c0ff #d2a8ff #56d4dd #d0d7de " +
  "#8b949e #ffa198 #aff5b4 #f2cc60 #a5d6ff #e2c5ff #b3f0ff #ffffff"
).split(" ");
const CHAR_WIDTH = 8.4;
const LINE_HEIGHT = 20;
const PADDING = 18;
const BAR = 30;

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** One line as SVG; every run of one look has its own place, so that it stands right in any monospace font. */
function drawLine(cells: readonly Cell[], y: number): string {
  let spans = "";
  for (let from = 0; from < cells.length;) {
    const { colour, bold } = cells[from]!;
    let to = from;
    while (to < cells.length && cells[to]!.colour === colour && cells[to]!.bold === bold) to++;
    const text = cells.slice(from, to).map(({ char }) => char);
    const look = `${colour === undefined ? "" : ` fill="${PALETTE[colour]}"`}${bold ? ' font-weight="bold"' : ""}`;
    const place = `x="${(PADDING + from * CHAR_WIDTH).toFixed(1)}" textLength="${(text.length * CHAR_WIDTH).toFixed(1)}"`;
    if (text.some((char) => char !== " ")) spans += `<tspan ${place}${look}>${escape(text.join(""))}</tspan>`;
    from = to;
  }
  return spans === "" ? "" : `<text y="${y}">${spans}</text>\n`;
}

/** The whole session as a window. */
export function drawTerminal({ lines, columns }: Terminal, title: string): string {
  const last = lines.findLastIndex((line) => line.length > 0);
  const width = Math.ceil(columns * CHAR_WIDTH + 2 * PADDING);
  const height = BAR + (last + 1) * LINE_HEIGHT + 2 * PADDING;
  const text = lines
    .slice(0, last + 1)
    .map((line, index) => drawLine(Array.from(line, blank), BAR + PADDING + 14 + index * LINE_HEIGHT));
  const dots = ["#ff5f56", "#ffbd2e", "#27c93f"].map(
    (colour, index) => `<circle cx="${20 + index * 20}" cy="17" r="6" fill="${colour}"/>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>${escape(title)}</title>
<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/>
${dots.join("")}
<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14" fill="#d0d7de" xml:space="preserve">
${text.join("")}</g>
</svg>
`;
}

/** A place that nothing was written to. */
const blank = (cell: Cell | undefined): Cell => cell ?? { char: " ", colour: undefined, bold: false };
