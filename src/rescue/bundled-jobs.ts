/** [compat] Jobs of the earlier program, which users may have copies of. */
export const EARLIER_JOBS: readonly string[] = ["add-ssh-keys", "run-ssh", "post-install"];
/** Jobs that come with the program. */
export const BUNDLED_JOBS: readonly string[] = [...EARLIER_JOBS, "grow-fs", "new-identity"];
