const two = (n: number): string => String(n).padStart(2, "0");

/** Year, month from 1, day, hour, minute, second. */
export type LocalTime = readonly [number, number, number, number, number, number];

/** `YYYY-MM-DD HH:MM:SS` in local time: the form of a snapshot's `TS` file. */
export const formatTimestamp = (date: Date): string =>
  formatLocalTime([
    date.getFullYear(),
    date.getMonth() + 1,
    date.getDate(),
    date.getHours(),
    date.getMinutes(),
    date.getSeconds(),
  ]);

/** The same of a time in parts. */
export const formatLocalTime = ([year, month, day, hour, minute, second]: LocalTime): string =>
  `${year}-${two(month)}-${two(day)} ${two(hour)}:${two(minute)}:${two(second)}`;

/** A duration for people: `8 s`, `2 min 05 s`, `1 h 03 min`. */
export function formatDuration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}
