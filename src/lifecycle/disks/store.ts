import type { ImageRequest } from "../../machine/types.ts";
import { diskNumber } from "../../store/layout.ts";
import { updateMark } from "../../store/mark.ts";
import type { Workdir } from "../../store/workdir.ts";
import { numberImages, type NumberSettings } from "../../vm/machine.ts";
import { storeSettings, type SettingChanges } from "../../vm/store-settings.ts";
import type { Vm } from "../../vm/find.ts";
import { formatImage } from "./open.ts";

/** An image and its number. */
export interface NumberedImage {
  request: ImageRequest;
  number: number;
}

/**
 * Changes the VM's images in guest.env. Their numbers are recorded where they would be others by their order, so that
 * each disk keeps its place.
 * @param further settings to store with them
 */
export function storeDisks(
  vm: Vm,
  command: string,
  images: readonly NumberedImage[],
  further: SettingChanges = {},
): void {
  const { LAYOUT } = vm.settings;
  const IMAGES = images.map(({ request }) => request);
  const byOrder = numberImages({ IMAGES, LAYOUT, IMAGE_NUMBERS: [] });
  const others = images.filter(({ request }) => diskNumber(request.path) === undefined);
  const same = images.every(({ number }, index) => number === byOrder[index]);
  const recorded = others.map(({ number, request: { path } }) => ({ number, path }));
  const settings: NumberSettings = { IMAGES, LAYOUT, IMAGE_NUMBERS: same || LAYOUT === 0 ? [] : recorded };
  storeSettings(vm, command, {
    ...further,
    IMAGES: IMAGES.map(formatImage),
    IMAGE_NUMBERS:
      settings.IMAGE_NUMBERS.length > 0
        ? settings.IMAGE_NUMBERS.map(({ number, path }) => `${number}=${path}`)
        : undefined,
  });
}

/** Records which disks the working files have: without any of them they count as gone. */
export function recordDisks(work: Workdir, change: { added?: string; removed?: string }): void {
  const changed = (names: string[] | undefined): string[] | undefined =>
    names && [...names.filter((name) => name !== change.removed), ...(change.added ? [change.added] : [])];
  const { owns, disks } = work.mark;
  updateMark(work.dir, { owns: work.inplace ? changed(owns) : owns, disks: changed(disks) });
}
