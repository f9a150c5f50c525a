// What virtual sensors measure. Pure: (state, elapsed time, random) → readings. Plausible, not a model of a
// household; the rules are evaluated on a better one.

import type { FieldValue } from '../model/point.ts';
import type { Random } from './random.ts';

export const nodeKinds = ['meter', 'leak-probe', 'climate', 'door-lock', 'camera'] as const;

export type NodeKind = (typeof nodeKinds)[number];

export interface Reading {
  readonly measurement: string;
  readonly fields: Readonly<Record<string, FieldValue>>;
}

/** A sensor that remembers: a meter its total, a room its temperature. */
export type Sensor = (elapsedMs: number) => Reading;

/** What hands and commands do to a node, and its sensor shows. */
export interface Surroundings {
  isWet: boolean;
  isLocked: boolean;
}

function round(value: number, digits: number): number {
  const scale = 10 ** digits;
  return Math.round(value * scale) / scale;
}

/** About a year from full to empty. */
function battery(random: Random): (elapsedMs: number) => number {
  let percent = 60 + random() * 40;
  return (elapsedMs) => {
    percent = Math.max(0, percent - elapsedMs / 315_000_000);
    return round(percent, 1);
  };
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
  const left = battery(random);
  let temperatureC = 19 + random() * 4;
  let humidityPercent = 40 + random() * 20;
  return (elapsedMs) => {
    temperatureC += (random() - 0.5) * 0.1;
    humidityPercent = Math.min(95, Math.max(20, humidityPercent + (random() - 0.5) * 0.5));
    return {
      measurement: 'climate',
      fields: {
        temperature_c: round(temperatureC, 2),
        humidity_percent: round(humidityPercent, 1),
        battery_percent: left(elapsedMs),
      },
    };
  };
}

function leakProbe(random: Random, around: Surroundings): Sensor {
  const left = battery(random);
  return (elapsedMs) => ({
    measurement: 'leak',
    fields: { wet: around.isWet, battery_percent: left(elapsedMs) },
  });
}

function doorLock(random: Random, around: Surroundings): Sensor {
  const left = battery(random);
  let openings = 0;
  return (elapsedMs) => {
    // Somebody passes about every ten minutes, and only where it is not locked.
    const isOpen = !around.isLocked && random() < elapsedMs / 600_000;
    if (isOpen) openings += 1;
    return {
      measurement: 'lock',
      fields: { locked: around.isLocked, open: isOpen, openings, battery_percent: left(elapsedMs) },
    };
  };
}

function camera(random: Random): Sensor {
  let recordedS = 0;
  return (elapsedMs) => {
    const hasMotion = random() < elapsedMs / 120_000;
    if (hasMotion) recordedS += elapsedMs / 1000;
    return {
      measurement: 'camera',
      fields: {
        motion: hasMotion,
        recorded_s: round(recordedS, 1),
        bitrate_kbit_s: round(hasMotion ? 1800 + random() * 400 : 120 + random() * 30, 0),
      },
    };
  };
}

export function createSensor(kind: NodeKind, random: Random, around: Surroundings): Sensor {
  switch (kind) {
    case 'meter':
      return meter(random);
    case 'climate':
      return climate(random);
    case 'leak-probe':
      return leakProbe(random, around);
    case 'door-lock':
      return doorLock(random, around);
    case 'camera':
      return camera(random);
  }
}
