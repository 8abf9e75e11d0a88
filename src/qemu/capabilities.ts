/** Features of the installed qemu, queried from it (see `probe.ts`). */
export interface Capabilities {
  /** `7.2.22` */
  version: string;
  /** Device types of `-device`. */
  devices: ReadonlySet<string>;
  /** Built with SPICE, and its modules are installed. */
  spice: boolean;
  /** Built with seccomp: `-sandbox` works. */
  sandbox: boolean;
  vnc: boolean;
  /** Built with io_uring, and can open a file with it. */
  ioUring: boolean;
  /** Built with Linux's native asynchronous I/O (io_submit(2)). */
  nativeAio: boolean;
}
