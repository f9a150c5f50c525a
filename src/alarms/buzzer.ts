// The buzzer on the gateway itself. The rhythms are not those of fire (three long) or carbon monoxide (four
// short), which mean: leave the house.

import type { BeatPattern, Led } from '../platform/led.ts';
import type { Annunciator } from './annunciator.ts';
import type { Sound } from './state.ts';

const patterns = {
  // Two short beeps every two seconds.
  critical: [
    { onMs: 200, offMs: 200 },
    { onMs: 200, offMs: 1_400 },
  ],
  // One long beep every five seconds.
  high: [{ onMs: 500, offMs: 4_500 }],
  // A chirp a minute.
  trouble: [{ onMs: 80, offMs: 59_920 }],
} as const satisfies Record<Exclude<Sound, 'off'>, BeatPattern>;

export function buzzer(led: Led): Annunciator {
  return {
    name: 'buzzer',
    sound: (sound) => (sound === 'off' ? led.off() : led.beat(patterns[sound])),
  };
}
