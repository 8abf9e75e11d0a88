/** What the installed qemu can do, as it says itself (see `probe.ts`). */
export interface Capabilities {
  /** `7.2.22` */
  version: string;
  /** Device types that `-device` takes. */
  devices: ReadonlySet<string>;
  /** Built with SPICE, and its modules are installed. */
  spice: boolean;
  /** Built with seccomp: `-sandbox` works. */
  sandbox: boolean;
  vnc: boolean;
}
