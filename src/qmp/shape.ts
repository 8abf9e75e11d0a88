/**
 * Schemas of JSON values, as data: types are derived from them, values are checked against them, and a test compares them
 * with qemu's own schema.
 */

/**
 * `any` is not checked; a one-element list stands for lists of any length; a member whose name ends in `?` is optional. Of
 * an enumeration, `oneOf` has the values that are sent, and `known` those that replies are compared with: qemu may send
 * others.
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
      ? // Any string; editors complete the known ones.
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

/** Name of a member without `?`, and whether it is optional. */
export const readMember = (name: string): { name: string; optional: boolean } =>
  name.endsWith("?") ? { name: name.slice(0, -1), optional: true } : { name, optional: false };

/**
 * Finds the first part of a value that does not match a shape. Members that the shape does not name are ignored, and an
 * enumeration may have other values: later versions of qemu add to both.
 * @returns its path: `[0].image.virtual-size`; undefined if the value matches
 */
export function findShapeMismatch(value: unknown, shape: Shape, place = ""): string | undefined {
  const here = place || "its value";
  if (typeof shape === "string") return shape === "any" || typeof value === shape ? undefined : here;
  if (isList(shape)) {
    if (!Array.isArray(value)) return here;
    return first(
      value.map((element, index) => () => findShapeMismatch(element, shape[0], `${place}[${index}]`)),
    );
  }
  if ("oneOf" in shape || "known" in shape) return typeof value === "string" ? undefined : here;
  if (isChoice(shape))
    return shape.either.some((variant) => findShapeMismatch(value, variant) === undefined) ? undefined : here;
  if (!isObject(value)) return here;
  return first(
    Object.entries(shape).map(([key, member]) => () => {
      const { name, optional } = readMember(key);
      if (value[name] === undefined && optional) return undefined;
      return findShapeMismatch(value[name], member, place ? `${place}.${name}` : name);
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
