/** Where a setting's value comes from. */
export type Origin = (
  | { kind: "default" }
  | { kind: "file"; file: string; line: number }
  /** `option`: `--cores`, if known. */
  | { kind: "option"; option?: string }
  | { kind: "environment" }
) & {
  /** The list ends with items from the command line. */
  added?: true;
};
