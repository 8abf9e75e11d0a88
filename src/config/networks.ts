import {
  explainNetwork,
  MAX_NICS,
  NETWORK_SYNTAX,
  parseNetwork,
  type NetworkRequest,
} from "../machine/network.ts";
import { listOf, listOfForm, parser, type Parser } from "./values.ts";

const networkList = listOfForm({
  kind: "networks",
  allowed: NETWORK_SYNTAX,
  parse: parseNetwork,
  explain: explainNetwork,
});

/** Network cards. */
export const networks: Parser<NetworkRequest[]> = parser(
  { kind: "networks", allowed: NETWORK_SYNTAX },
  (raw) => {
    const parsed = networkList(raw);
    if (!("value" in parsed)) return parsed;
    if (parsed.value.length > MAX_NICS)
      return { allowed: `at most ${MAX_NICS} cards`, given: listOf(raw)[MAX_NICS]! };
    const macs = parsed.value.flatMap(({ mac }) => mac ?? []);
    const twice = macs.find((mac, index) => macs.indexOf(mac) !== index);
    return twice ? { allowed: "each MAC address once", given: twice } : parsed;
  },
);
