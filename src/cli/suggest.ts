import { VmError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { shellLine } from "../lib/shell.ts";
import { COMMANDS } from "./registry.ts";

/** A command of this program, and what it does. */
type Meant = readonly [words: string, does: string];

const START: Meant[] = [
  ["run --detach", "start it in the background"],
  ["run", "run it until the guest is off"],
];
const STOP: Meant[] = [["stop", "shut the guest down"]];
const STATUS: Meant[] = [["status", "show this VM"]];
const LIST: Meant[] = [["list", "show all VMs"]];
const DESTROY: Meant = ["destroy", "remove the working files; snapshots stay"];
const REMOVE: Meant[] = [["snapshots rm NAME", "remove a snapshot"], DESTROY];
const LOG_IN: Meant[] = [
  ["ssh", "log in by ssh"],
  ["console", "open the serial console"],
];
const SCREEN: Meant[] = [
  ["view", "open the screen"],
  ["screenshot", "save a picture of it"],
];
const NEW: Meant[] = [["create NAME", "make a VM here"]];
const SAVE: Meant[] = [["backup", "make a snapshot"]];
const SUSPEND: Meant[] = [["suspend", "save the guest's RAM to disk, and end qemu"]];
const COPY: Meant[] = [["cp FILE :/root/", "copy a file into the guest"]];
const RESTORE: Meant[] = [["restore", "restore the last snapshot"]];
const SETTINGS: Meant[] = [
  ["config", "show the settings"],
  ["set SETTING=VALUE", "change settings of this VM"],
];
const CARDS: Meant[] = [
  ["nic list", "list the network cards"],
  ["nic add", "add one"],
];
const FORWARDS: Meant[] = [
  ["forward list", "list the port forwards"],
  ["forward add tcp:127.0.0.1:5555-:22", "add one"],
];
const KEYS: Meant[] = [["sendkey ctrl-alt-f2", "press keys of the guest's keyboard"]];

/** What other programs of this kind (virsh, lxc, multipass, vagrant, docker) call these. */
const readSynonyms = (): ReadonlyMap<string, readonly Meant[]> =>
  new Map(
    (
      [
        ["start up boot launch power-on poweron", START],
        ["shutdown shut down off halt poweroff power-off end quit", STOP],
        ["kill", [["stop --force", "kill the guest, as a power cut would"]]],
        ["reboot reset", [["restart", "stop it, and start it again"]]],
        ["hibernate managedsave managed-save", SUSPEND],
        ["freeze", [["pause", "pause the guest"]]],
        ["unpause continue thaw", [["resume", "resume the guest"]]],
        ["info state inspect dominfo", STATUS],
        ["show", [...STATUS, ["snapshots show NAME", "show a snapshot"]]],
        ["diff compare", [["snapshots diff S0 S1", "compare two snapshots"]]],
        ["describe", [["snapshots describe NAME TEXT", "describe a snapshot"]]],
        ["ls ps vms all", LIST],
        ["undefine terminate", [DESTROY]],
        ["delete del remove rm purge", REMOVE],
        ["shell login connect enter attach sh bash", LOG_IN],
        ["gui display vnc spice screen viewer open", SCREEN],
        ["new init make define install import", NEW],
        ["template", [["set TEMPLATE=on", "make the VM a template, which can only be cloned"]]],
        [
          "move mv",
          [
            ["rename NAME", "rename the VM and its directory"],
            ["move-work DIR", "move the working files"],
          ],
        ],
        ["save", [...SUSPEND, ...SAVE]],
        ["snap snapshot checkpoint dump", SAVE],
        ["revert rollback undo load recover", RESTORE],
        ["net nics network networks netdev card cards ethernet", CARDS],
        ["forwards port ports portforward port-forward hostfwd", FORWARDS],
        ["key keys send-key sendkeys keyboard", KEYS],
        ["type", [["sendkey --text TEXT", "type a text on the guest's keyboard"]]],
        ["memory mem ram", [["set -m 4G", "change the memory"]]],
        ["cpu cpus cores vcpus", [["set -c 4", "change the number of CPU cores"]]],
        ["get settings edit configure options env", SETTINGS],
        ["log logs", [["console --log", "show what the serial console has said"]]],
        ["copy scp pull", COPY],
        ["push", [["snapshots push NAME", "copy a snapshot to the repository"], ...COPY]],
        ["forget gc cleanup clean", [["prune --keep-last=7", "keep the newest seven snapshots"]]],
        ["check fsck", [["verify", "check that the last snapshot is intact"]]],
        ["jobs script", [["job", "run a job"]]],
        ["cron schedule", [["timer", "show a timer that makes backups"]]],
        ["enable onboot boot-start", [["autostart on", "start the VM with the host"]]],
        ["disable", [["autostart off", "do not start the VM with the host"]]],
        ["eject", [["cd --eject", "take the CD out"]]],
        ["insert dvd cdrom iso", [["cd IMAGE", "put a CD into the drive"]]],
        ["disks drive drives", [["disk", "list the VM's disks"]]],
        [
          "attach detach",
          [
            ["disk add TYPE=PATH", "add an image as a disk"],
            ["disk remove NAME", "remove a disk"],
          ],
        ],
        ["grow resize", [["disk resize NAME +10G", "grow a disk"]]],
        ["uuid id", [["identity", "show the VM's UUID"]]],
        ["version", [["--version", "show the version"]]],
        ["usage commands", [["help", "show all commands and options"]]],
      ] satisfies [string, Meant[]][]
    ).flatMap(([words, meant]) => words.split(" ").map((word) => [word, meant] as const)),
  );

/** A line that can be pasted. */
export const formatLine = (prog: string, words: readonly string[]): string => shellLine([prog, ...words]);

/**
 * The hint for a word that is no command: what could be meant, as lines to paste.
 * @param retype the words of the whole line with the wrong one replaced
 * @param start what the lines begin with
 */
export function hintFor(
  word: string,
  prog: string,
  retype: (name: string) => readonly string[] = (name) => [name],
  start = prog,
): string {
  const all = `all commands: ${prog} help`;
  const meant = readSynonyms().get(word.toLowerCase());
  if (meant) {
    const line = retype(word);
    const argument = line[line.lastIndexOf(word) + 1];
    const fill = (words: string): string =>
      argument === undefined ? words : words.replace("NAME", () => shellLine([argument]));
    return [...meant.map(([words, does]) => `${does}: ${start} ${fill(words)}`), all].join("\n");
  }
  const suggestion = nearest(word, [...COMMANDS.keys()]);
  return suggestion ? `did you mean: ${formatLine(prog, retype(suggestion))}\n${all}` : all;
}

/** A word that stands where a command must. */
export class UnknownCommand extends VmError {
  constructor(
    readonly word: string,
    prog: string,
    retype?: (name: string) => readonly string[],
  ) {
    super("usage", `unknown command '${word}'`, { hint: hintFor(word, prog, retype) });
  }
}

export const unknownCommand = (
  word: string,
  prog: string,
  retype?: (name: string) => readonly string[],
): VmError => new UnknownCommand(word, prog, retype);

/** The same for `start NAME`, where NAME is a VM's directory. */
export const hintForVm = (word: string, prog: string, directory: string): string =>
  hintFor(word, prog, (name) => ["-d", directory, name], formatLine(prog, ["-d", directory]));
