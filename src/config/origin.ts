/** Where a setting's value comes from. */
export type Origin = (
  | { kind: "default" }
  | { kind: "file"; file: string; line: number }
  /** `option`: `--cores`, where that is known. */
  | { kind: "option"; option?: string }
  | { kind: "environment" }
) & {
  /** Items from the command line stand at the end of the list. */
  added?: true;
};
