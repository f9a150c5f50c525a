// Names as they are written outside (JSON over HTTP, in the command line and in the control socket: snake_case) and as
// they are inside (camelCase). For trees of plain values whose keys are names of ours; ids and what people named
// belong into values.

function renamed(value: unknown, rename: (name: string) => string): unknown {
  if (Array.isArray(value)) return value.map((inner) => renamed(inner, rename));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [rename(name), renamed(inner, rename)]),
  );
}

/** `{acceptedPoints: 1}` → `{accepted_points: 1}` */
export function snakeCased(value: unknown): unknown {
  return renamed(value, (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
}

/** `{accepted_points: 1}` → `{acceptedPoints: 1}` */
export function camelCased(value: unknown): unknown {
  return renamed(value, (name) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()));
}
