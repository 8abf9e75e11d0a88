import type { Display } from "../../machine/types.ts";
import type { Capabilities } from "../capabilities.ts";
import { escapeCommas } from "../text.ts";

/** The screen: SPICE, or a graphics card that nobody looks at. No window is ever tried. */
export function buildDisplayArgs(display: Display, capabilities: Capabilities): string[] {
  const none = ["-display", "none"];
  if (display.kind === "serial") return none;
  if (display.kind === "none") return [...none, "-device", "VGA,id=vga0"];
  const { host, port, passwordFile } = display;
  const secret = passwordFile
    ? ["-object", `secret,id=spice-password,file=${escapeCommas(passwordFile)}`]
    : [];
  const access = passwordFile ? "password-secret=spice-password" : "disable-ticketing=on";
  const card = capabilities.devices.has("qxl-vga") ? "qxl-vga" : "VGA";
  const args = [
    ...none,
    ...secret,
    "-spice",
    `addr=${escapeCommas(host)},port=${port},${access}`,
    "-device",
    `${card},id=vga0`,
  ];
  // The agent in the guest: clipboard and screen size.
  return [
    ...args,
    "-device",
    "virtio-serial-pci,id=serial-bus0",
    "-chardev",
    "spicevmc,id=vdagent,name=vdagent",
    "-device",
    "virtserialport,bus=serial-bus0.0,chardev=vdagent,name=com.redhat.spice.0",
  ];
}
