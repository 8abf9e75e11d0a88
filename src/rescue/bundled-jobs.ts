/** Jobs that come with the program. */
export const BUNDLED_JOBS: readonly string[] = ["add-ssh-keys", "run-ssh", "post-install"];
