// How a moment is shown outside: RFC 3339 in UTC, or nothing where nobody knows it.

/** RFC 3339; null for 0 and for a time no calendar knows (a damaged clock). */
export function shownTime(wallMs: number | undefined): string | null {
  if (wallMs === undefined || wallMs === 0) return null;
  const time = new Date(wallMs);
  return Number.isNaN(time.getTime()) ? null : time.toISOString();
}
