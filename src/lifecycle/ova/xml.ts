/** Reads XML of the kind that OVF descriptors have: elements, attributes and text. No document types, no entities. */
import { VmError } from "../../lib/errors.ts";

/** Names are without their prefix: the namespaces of OVF 1 and 2 differ, the names do not. */
export interface XmlElement {
  name: string;
  attributes: Map<string, string>;
  children: XmlElement[];
  text: string;
}

const MOST_ELEMENTS = 20_000;
const DEEPEST = 64;

const NAME = String.raw`[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?`;
/** Text, comments, processing instructions, CDATA, and tags; anything else is refused. */
const TOKEN = new RegExp(
  String.raw`([^<]+)|<!--[^]*?-->|<\?[^]*?\?>|<!\[CDATA\[([^]*?)\]\]>|<(/?)(${NAME})((?:\s+${NAME}\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(/?)>`,
  "y",
);
const ATTRIBUTE = new RegExp(String.raw`(${NAME})\s*=\s*(?:"([^"]*)"|'([^']*)')`, "g");
const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

const damaged = (reason: string): VmError => new VmError("io", `refusing the OVF descriptor: ${reason}`);

const decode = (text: string): string =>
  text.replaceAll(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w{1,10}));/gi, (_, hex, decimal, name) => {
    const code = hex ? Number.parseInt(hex, 16) : decimal ? Number(decimal) : undefined;
    const found =
      code === undefined ? ENTITIES[name] : code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
    if (found === undefined) throw damaged("it has an entity that is not one of XML's own");
    return found;
  });

const localName = (name: string): string => name.slice(name.indexOf(":") + 1);

/** Pure. @returns the root element @throws 74 for anything else than well-formed XML without a document type */
export function parseXml(source: string): XmlElement {
  const text = source.replace(/^\ufeff/, "");
  const root: XmlElement = { name: "", attributes: new Map(), children: [], text: "" };
  const open: { element: XmlElement; tag: string }[] = [{ element: root, tag: "" }];
  let count = 0;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match)
      throw damaged(
        text.startsWith("<!DOCTYPE", at) ? "it has a document type" : "it is not well-formed XML",
      );
    const [, plain, cdata, closing, tag, attributes = "", empty] = match;
    const { element: parent, tag: opened } = open.at(-1)!;
    if (plain !== undefined) parent.text += decode(plain);
    else if (cdata !== undefined) parent.text += cdata;
    else if (closing === "/") {
      if (tag !== opened || open.length === 1) throw damaged("it is not well-formed XML");
      open.pop();
    } else if (tag !== undefined) {
      if (++count > MOST_ELEMENTS || open.length > DEEPEST) throw damaged("it has too many elements");
      const element: XmlElement = { name: localName(tag), attributes: new Map(), children: [], text: "" };
      for (const [, name = "", double, single] of attributes.matchAll(ATTRIBUTE))
        element.attributes.set(localName(name), decode(double ?? single ?? ""));
      parent.children.push(element);
      if (empty !== "/") open.push({ element, tag });
    }
  }
  const [first, ...others] = root.children;
  if (open.length > 1 || !first || others.length > 0) throw damaged("it is not well-formed XML");
  return first;
}

/** All elements of a name below an element, in order. */
export function findAll({ children }: XmlElement, name: string): XmlElement[] {
  return children.flatMap((child) => [...(child.name === name ? [child] : []), ...findAll(child, name)]);
}

/** Text of a child; undefined without one. */
export const textOf = (element: XmlElement, name: string): string | undefined =>
  element.children.find((child) => child.name === name)?.text.trim();
