import { isObject, readMember, type Members, type Shape } from "../../src/qmp/shape.ts";

/** An entity of `query-qmp-schema` (qemu's qapi/introspect.json). */
export interface Entity {
  name: string;
  "meta-type": "command" | "event" | "object" | "alternate" | "enum" | "array" | "builtin";
  "arg-type"?: string;
  "ret-type"?: string;
  "json-type"?: string;
  "element-type"?: string;
  /** Of an enumeration; since qemu 6.2 also in `members`. */
  values?: string[];
  members?: { name: string; type: string; default?: null; features?: string[] }[];
  tag?: string;
  variants?: { case: string; type: string }[];
  features?: string[];
}

/** `sent`: qemu must accept it. `read`: qemu always sends it, unless it is optional. `heard`: qemu may send it. */
export type Direction = "sent" | "read" | "heard";

/** qemu's schema of its commands and events. */
export class Schema {
  readonly #entities: ReadonlyMap<string, Entity>;
  /** Entities that were compared. */
  readonly used = new Set<Entity>();

  constructor(entities: readonly Entity[]) {
    this.#entities = new Map(entities.map((entity) => [entity.name, entity]));
  }

  find(name: string | undefined): Entity | undefined {
    const found = this.#entities.get(name ?? "");
    if (found) this.used.add(found);
    return found;
  }

  /** Compares a shape with a type of qemu's. @returns a line for each difference */
  compare(shape: Shape, type: string | undefined, direction: Direction, place: string): string[] {
    const entity = this.find(type);
    if (!entity) return [`${place}: qemu has no such type`];
    if (shape === "any") return [];
    if (entity["meta-type"] === "alternate") {
      const tries = entity.members!.map((choice) => this.compare(shape, choice.type, direction, place));
      return tries.find((found) => found.length === 0) ?? [`${place}: none of qemu's alternatives`];
    }
    if (typeof shape === "string") return scalarOf(entity) === shape ? [] : [`${place}: is no ${shape}`];
    if (Array.isArray(shape))
      return entity["element-type"] === undefined
        ? [`${place}: is no list`]
        : this.compare(shape[0], entity["element-type"], direction, `${place}[]`);
    const values = valuesIn(shape);
    if (values) {
      const known = entity.values ?? entity.members?.map(({ name }) => name) ?? [];
      if (entity["meta-type"] !== "enum") return [`${place}: is no enumeration`];
      return values.filter((value) => !known.includes(value)).map((value) => `${place}: has no ${value}`);
    }
    if ("either" in shape)
      return (shape.either as readonly Members[]).flatMap((variant, index) =>
        this.compare(variant, type, direction, `${place}(${index})`),
      );
    if (entity["meta-type"] !== "object") return [`${place}: is no object`];
    return this.#compareMembers(shape as Members, entity, direction, place);
  }

  #compareMembers(shape: Members, entity: Entity, direction: Direction, place: string): string[] {
    const tagged = valuesIn(shape[entity.tag ?? ""]);
    const variants = (entity.variants ?? []).filter(({ case: name }) => !tagged || tagged.includes(name));
    const own = entity.members ?? [];
    const further = variants.flatMap(({ type }) =>
      (this.find(type)?.members ?? []).map((member) => (tagged ? member : { ...member, default: null })),
    );
    const declared = [...own, ...further];
    const named = Object.entries(shape).flatMap(([key, member]) => {
      const { name, optional } = readMember(key);
      const here = `${place}.${name}`;
      const places = declared.filter((item) => item.name === name);
      if (places.length === 0) return [`${here}: qemu does not know it`];
      const tries = places.map(({ type }) => this.compare(member, type, direction, here));
      const found = tries.find((complaints) => complaints.length === 0) ? [] : tries[0]!;
      if (direction === "read" && !optional && places.every((item) => "default" in item))
        found.push(`${here}: may be absent`);
      if (places.some(({ features }) => features?.includes("deprecated")))
        found.push(`${here}: is deprecated`);
      return found;
    });
    if (direction !== "sent") return named;
    const missing = declared.filter((item) => !("default" in item) && !(item.name in shape));
    return [...named, ...missing.map(({ name }) => `${place}.${name}: is not sent, and qemu needs it`)];
  }
}

function scalarOf(entity: Entity): string | undefined {
  if (entity["meta-type"] === "enum") return "string";
  const { "json-type": kind } = entity;
  return kind === "int" ? "number" : kind;
}

/** The values of an enumeration that a shape contains. */
function valuesIn(shape: Shape | undefined): readonly string[] | undefined {
  if (!isObject(shape)) return undefined;
  const { oneOf, known }: Record<string, unknown> = shape;
  const values = oneOf ?? known;
  return Array.isArray(values) ? (values as string[]) : undefined;
}

/** Queries the schema of a qemu. */
export async function querySchema(binary: string): Promise<Entity[]> {
  const argv = [binary, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"];
  const qemu = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe" });
  const commands = ["qmp_capabilities", "query-qmp-schema", "quit"];
  qemu.stdin.write(commands.map((execute) => `${JSON.stringify({ execute, id: execute })}\n`).join(""));
  await qemu.stdin.end();
  const replies = (await new Response(qemu.stdout).text()).trim().split("\n");
  const reply = replies.map((line) => JSON.parse(line)).find(({ id }) => id === "query-qmp-schema");
  return reply.return as Entity[];
}
