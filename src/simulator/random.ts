// Seeded randomness, so that a simulated day can be had again. Not for secrets.

export type Random = () => number;

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32, public domain algorithm by T. Ettinger). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
