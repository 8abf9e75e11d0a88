import { AsyncLocalStorage } from "node:async_hooks";
import { programName, setScope } from "./command-line.ts";

const scope = new AsyncLocalStorage<readonly string[]>();

/** Has hints of `use` be about the VM in this directory, whatever else runs meanwhile. */
export function aboutOneVm<T>(hostdir: string, use: () => Promise<T>): Promise<T> {
  setScope(() => scope.getStore());
  return scope.run([programName(), "-d", hostdir], use);
}
