import { define } from "./define.ts";

export default define({
  meta: { name: "sendkey", description: "press keys of the running guest's keyboard, or type a text" },
  args: {
    key: {
      type: "positional",
      many: true,
      kind: "key",
      required: false,
      description: "keys in qemu's names, joined by - if pressed together: ctrl-alt-f2, ret",
    },
    text: {
      type: "string",
      many: true,
      valueHint: "TEXT",
      description: "type TEXT as on a US keyboard, after the keys; \\n: Enter, \\t: Tab, \\e: Esc",
    },
    delay: {
      type: "string",
      valueHint: "MS",
      description: "wait MS milliseconds after each key, for slow programs; default: 0",
    },
  },
  async parse({ key, text, delay }) {
    const { parseSendKey } = await import("../guest/sendkey.ts");
    return parseSendKey({ keys: [key ?? []].flat(), texts: [text ?? []].flat(), delay });
  },
  async run(context, request) {
    const { sendKeys } = await import("../guest/sendkey.ts");
    await sendKeys(context, request);
  },
});
