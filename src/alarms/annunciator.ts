// What an output for alarms must be able to do.

import type { Sound } from './state.ts';

export interface Annunciator {
  readonly name: string;
  /**
   * Makes exactly this sound from now on. Synchronous: when it returns, the output is on. Never throws; an output
   * that fails counts it and tries again by itself.
   */
  sound(sound: Sound): void;
}
