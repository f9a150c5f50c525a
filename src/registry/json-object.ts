// Free JSON from outside that is kept: bounded in bytes and in depth. Pure.

export type JsonObject = Readonly<Record<string, unknown>>;

export interface JsonBounds {
  readonly bytesMax: number;
  readonly levelsMax: number;
}

/** How deep it is nested, counted no further than it may be. */
function levelsOf(value: unknown, levelsMax: number, level = 0): number {
  if (typeof value !== 'object' || value === null || level > levelsMax) return level;
  let deepest = level + 1;
  for (const inner of Object.values(value)) {
    deepest = Math.max(deepest, levelsOf(inner, levelsMax, level + 1));
  }
  return deepest;
}

export function isJsonObject(value: unknown, { bytesMax, levelsMax }: JsonBounds): value is JsonObject {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    levelsOf(value, levelsMax) <= levelsMax &&
    Buffer.byteLength(JSON.stringify(value)) <= bytesMax
  );
}
