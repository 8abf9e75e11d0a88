/**
 * The shape of a JSON value, as data: types are derived from it, values are checked by it, and a test compares it with
 * qemu's own schema.
 */

/**
 * `any` is passed on as it is; a one-element list stands for lists of any length; a member whose name ends in `?` may be
 * absent. Of an enumeration, `oneOf` has the values that are sent, and `known` those that are compared with: qemu may
 * answer others.
 */
export type Shape =
  | "string"
  | "number"
  | "boolean"
  | "any"
  | { readonly oneOf: readonly string[] }
  | { readonly known: readonly string[] }
  | { readonly either: readonly Members[] }
  | readonly [Shape]
  | Members;

/** An object's members. */
export interface Members {
  readonly [name: string]: Shape;
}

/** The type of values of a shape. */
export type ValueOf<S> = S extends keyof Scalars
  ? Scalars[S]
  : S extends { readonly oneOf: readonly (infer Value)[] }
    ? Value
    : S extends { readonly known: readonly (infer Value)[] }
      ? // Any text, and an editor still proposes the known ones.
        Value | (string & {})
      : S extends { readonly either: readonly (infer Variant)[] }
        ? ValueOf<Variant>
        : S extends readonly [infer Element]
          ? readonly ValueOf<Element>[]
          : { [Name in keyof S as Name extends `${string}?` ? never : Name]: ValueOf<S[Name]> } & {
              [Name in keyof S as Name extends `${infer Bare}?` ? Bare : never]?: ValueOf<S[Name]>;
            };

interface Scalars {
  string: string;
  number: number;
  boolean: boolean;
  any: unknown;
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The bare name of a member, and whether it may be absent. */
export const readMember = (name: string): { name: string; optional: boolean } =>
  name.endsWith("?") ? { name: name.slice(0, -1), optional: true } : { name, optional: false };

/**
 * Finds the first part of a value that is not of its shape. Members that the shape does not name are passed over, and an
 * enumeration may have other values: later versions of qemu add to both.
 * @returns its place: `[0].image.virtual-size`; undefined when all of the value fits
 */
export function findMisfit(value: unknown, shape: Shape, place = ""): string | undefined {
  const here = place || "the whole";
  if (typeof shape === "string") return shape === "any" || typeof value === shape ? undefined : here;
  if (isList(shape)) {
    if (!Array.isArray(value)) return here;
    return first(value.map((element, index) => () => findMisfit(element, shape[0], `${place}[${index}]`)));
  }
  if ("oneOf" in shape || "known" in shape) return typeof value === "string" ? undefined : here;
  if (isChoice(shape))
    return shape.either.some((variant) => findMisfit(value, variant) === undefined) ? undefined : here;
  if (!isObject(value)) return here;
  return first(
    Object.entries(shape).map(([key, member]) => () => {
      const { name, optional } = readMember(key);
      if (value[name] === undefined && optional) return undefined;
      return findMisfit(value[name], member, place ? `${place}.${name}` : name);
    }),
  );
}

const isList = (shape: Shape): shape is readonly [Shape] => Array.isArray(shape);

const isChoice = (shape: object): shape is { readonly either: readonly Members[] } => "either" in shape;

function first(checks: readonly (() => string | undefined)[]): string | undefined {
  for (const check of checks) {
    const found = check();
    if (found !== undefined) return found;
  }
  return undefined;
}
