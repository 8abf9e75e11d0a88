import { formatImage } from "../../machine/parse.ts";
import type { ImageRequest } from "../../machine/types.ts";
import { diskNumber } from "../../store/layout.ts";
import { keepControllerPlaces } from "../../qemu/devices/disk.ts";
import { updateMark } from "../../store/mark.ts";
import type { Workdir } from "../../store/workdir.ts";
import { numberImages } from "../../vm/disks.ts";
import { storeSettings, type SettingChanges } from "../../vm/store-settings.ts";
import type { Vm } from "../../vm/find.ts";

/** An image and its number. */
export interface NumberedImage {
  request: ImageRequest;
  number: number;
}

/**
 * Changes the VM's images in guest.env. Their numbers, and the places of controllers, are recorded where they would be
 * others by the images, so that each device keeps its place.
 * @param further settings to store with them
 */
export function storeDisks(
  vm: Vm,
  command: string,
  images: readonly NumberedImage[],
  further: SettingChanges = {},
): void {
  const { settings } = vm;
  const { LAYOUT } = settings;
  const IMAGES = images.map(({ request }) => request);
  const before = numberImages(settings).map((number, index) => ({
    bus: settings.IMAGES[index]!.bus,
    number,
  }));
  const places =
    LAYOUT === 0
      ? []
      : keepControllerPlaces(
          { disks: before, controllerPlaces: settings.CONTROLLER_PLACES },
          images.map(({ number, request: { bus } }) => ({ bus, number })),
        );
  const byOrder = numberImages({ IMAGES, LAYOUT, IMAGE_NUMBERS: [], CONTROLLER_PLACES: places });
  const same = LAYOUT === 0 || images.every(({ number }, index) => number === byOrder[index]);
  const others = same ? [] : images.filter(({ request }) => diskNumber(request.path) === undefined);
  storeSettings(vm, command, {
    ...further,
    IMAGES: IMAGES.map(formatImage),
    IMAGE_NUMBERS: listOrNone(others.map(({ number, request: { path } }) => `${number}=${path}`)),
    CONTROLLER_PLACES: listOrNone(places.map(({ controller, place }) => `${controller}=${place}`)),
  });
}

/** A list of settings; none is removed from the file. */
const listOrNone = (list: string[]): string[] | undefined => (list.length > 0 ? list : undefined);

/** Records which disks the working files have: without any of them they count as gone. */
export function recordDisks(work: Workdir, change: { added?: string; removed?: string }): void {
  const changed = (names: string[] | undefined): string[] | undefined =>
    names && [...names.filter((name) => name !== change.removed), ...(change.added ? [change.added] : [])];
  const { owns, disks } = work.mark;
  updateMark(work.dir, { owns: work.inplace ? changed(owns) : owns, disks: changed(disks) });
}
