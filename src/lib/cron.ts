/** The short names of daemons: Vixie's, cronie's and busybox's, fcron. systemd-cron makes units instead. */
export const CRONS: readonly string[] = ["cron", "crond", "fcron"];

/** Words for crontab(5): a minute and an hour of the caller's, the rest of the first month, day or week. */
const NAMED: Readonly<Record<string, (minute: number, hour: number) => string>> = {
  hourly: (minute) => `${minute} * * * *`,
  daily: (minute, hour) => `${minute} ${hour} * * *`,
  weekly: (minute, hour) => `${minute} ${hour} * * 1`,
  monthly: (minute, hour) => `${minute} ${hour} 1 * *`,
  quarterly: (minute, hour) => `${minute} ${hour} 1 1,4,7,10 *`,
  semiannually: (minute, hour) => `${minute} ${hour} 1 1,7 *`,
  yearly: (minute, hour) => `${minute} ${hour} 1 1 *`,
};

export const CRON_WORDS: string = `${Object.keys(NAMED).join(", ")}, HH:MM, *:MM, or five fields as in a crontab`;

const FIELDS = /^[0-9*,/-]+( +[0-9A-Za-z*,/-]+){4}$/;

/**
 * When, as a crontab says it.
 * @param spread any number: with it, many VMs do not all begin at once
 * @returns undefined for an invalid schedule, or one that a crontab cannot express
 */
export function cronFields(when: string, spread: number): string | undefined {
  if (Object.hasOwn(NAMED, when)) return NAMED[when]!(spread % 60, Math.floor(spread / 60) % 6);
  const clock = /^(?:\*-\*-\* )?(\*|[01]?\d|2[0-3]):([0-5]\d)(?::00)?$/.exec(when);
  if (clock) return `${Number(clock[2])} ${clock[1] === "*" ? "*" : Number(clock[1])} * * *`;
  return FIELDS.test(when) ? when : undefined;
}

/** What cannot stand in single quotes there, by its own letter. */
const SPECIAL: Readonly<Record<string, string>> = {
  "'": String.raw`'\''`,
  "\\": String.raw`'"$(printf '\134')"'`,
  "%": String.raw`\%`,
};

/**
 * One word of the command in a crontab, for its `sh`. cron ends the command at a bare `%`, and some crons read `\\`
 * as `\`: no backslash may precede another one.
 */
export const quoteForCron = (word: string): string =>
  /^[A-Za-z0-9_@+=:,./-]+$/.test(word)
    ? word
    : `'${word.replaceAll(/['\\%]/g, (letter) => SPECIAL[letter]!)}'`;
