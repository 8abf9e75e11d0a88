/** States of VMs as `list` shows them: those of `state`, and what else is told of a VM in their place. */
export const STATES = [
  "running",
  "paused",
  "suspended",
  "stopped",
  "created",
  "crashed",
  "broken",
  "job",
  "panicked",
  "template",
] as const;
