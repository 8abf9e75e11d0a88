import { NIC_ACTIONS } from "../lifecycle/choices.ts";
import { either } from "../lib/text.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "nic", description: "add or remove network cards, list them, or unplug their cables" },
  args: {
    action: { type: "positional", choices: NIC_ACTIONS, required: true, description: either(NIC_ACTIONS) },
    card: {
      type: "positional",
      required: false,
      description: "add: the network, user if omitted; remove, up, down: number of the card",
    },
    net: { type: "string", valueHint: "NETWORK", description: "add: connect the card to this network" },
    mac: {
      type: "string",
      valueHint: "ADDRESS",
      description: "add: set the MAC address; default: the VM's own",
    },
    json: {
      type: "boolean",
      description: "list: print [{number, network, mac, link, name, address, running, nextRun}]",
    },
  },
  async parse(args) {
    const { parseNicRequest } = await import("../lifecycle/nic.ts");
    return parseNicRequest(args);
  },
  async run(context, request) {
    const { runNic } = await import("../lifecycle/nic.ts");
    await runNic(context, request);
  },
});
