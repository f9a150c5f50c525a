// What virtual sensors measure. Pure: (state, elapsed time, random) → readings. Plausible, not a model of a
// household; the rules are evaluated on a better one.

import type { FieldValue } from '../model/point.ts';
import type { Random } from './random.ts';

export type NodeKind = 'meter' | 'leak-probe' | 'climate';

export const nodeKinds = ['meter', 'leak-probe', 'climate'] as const satisfies readonly NodeKind[];

export interface Reading {
  readonly measurement: string;
  readonly fields: Readonly<Record<string, FieldValue>>;
}

/** A sensor that remembers: a meter its total, a room its temperature. */
export type Sensor = (elapsedMs: number) => Reading;

function round(value: number, digits: number): number {
  const scale = 10 ** digits;
  return Math.round(value * scale) / scale;
}

function meter(random: Random): Sensor {
  let totalL = 182_000 + random() * 1000;
  let flowLPerMin = 0;
  let useLeftMs = 0;
  return (elapsedMs) => {
    useLeftMs -= elapsedMs;
    if (useLeftMs <= 0) {
      // A tap opens about once a minute; half of the uses are short.
      const opens = flowLPerMin === 0 && random() < elapsedMs / 60_000;
      flowLPerMin = opens ? 2 + random() * 10 : 0;
      useLeftMs = opens ? 5_000 + random() * 60_000 : 0;
    }
    totalL += (flowLPerMin * elapsedMs) / 60_000;
    return { measurement: 'water', fields: { flow_l_min: round(flowLPerMin, 2), total_l: round(totalL, 3) } };
  };
}

function climate(random: Random): Sensor {
  let temperatureC = 19 + random() * 4;
  let humidityPercent = 40 + random() * 20;
  return () => {
    temperatureC += (random() - 0.5) * 0.1;
    humidityPercent = Math.min(95, Math.max(20, humidityPercent + (random() - 0.5) * 0.5));
    return {
      measurement: 'climate',
      fields: { temperature_c: round(temperatureC, 2), humidity_percent: round(humidityPercent, 1) },
    };
  };
}

function leakProbe(random: Random, isWet: () => boolean): Sensor {
  let batteryPercent = 80 + random() * 20;
  return (elapsedMs) => {
    batteryPercent = Math.max(0, batteryPercent - elapsedMs / 1e9);
    return { measurement: 'leak', fields: { wet: isWet(), battery_percent: round(batteryPercent, 1) } };
  };
}

/** `isWet` matters to leak probes alone. */
export function createSensor(kind: NodeKind, random: Random, isWet: () => boolean): Sensor {
  switch (kind) {
    case 'meter':
      return meter(random);
    case 'climate':
      return climate(random);
    case 'leak-probe':
      return leakProbe(random, isWet);
  }
}
