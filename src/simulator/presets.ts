// The fleets of `iotflow simulate fleet`: what stands where in a home, an office and a factory, and what each device
// says of itself when it registers. Their ids begin with `sim-`, so that nobody takes them for real ones.

import { type NodeKind, nodeKinds } from './readings.ts';

export const presets = ['home', 'office', 'factory'] as const;

export type Preset = (typeof presets)[number];

export interface FleetDevice {
  readonly deviceId: string;
  readonly name: string;
  readonly kind: NodeKind;
  /** Of the registry and the tag `device_type`. */
  readonly type: string;
  readonly location: string;
  readonly firmwareVersion: string;
  readonly hardwareVersion: string;
}

const places: Readonly<Record<Preset, Readonly<Record<NodeKind, readonly string[]>>>> = {
  home: {
    'leak-probe': ['kitchen', 'bathroom', 'laundry'],
    meter: ['basement'],
    climate: ['living-room', 'bedroom'],
    'door-lock': ['front', 'back'],
    camera: ['porch'],
  },
  office: {
    'leak-probe': ['kitchenette', 'server-room'],
    meter: ['riser'],
    climate: [
      'reception',
      'meeting-room-1',
      'meeting-room-2',
      'open-plan-north',
      'open-plan-south',
      'server-room',
    ],
    'door-lock': ['main-entrance', 'side-entrance', 'server-room', 'archive'],
    camera: ['entrance', 'car-park', 'corridor'],
  },
  factory: {
    'leak-probe': ['boiler-room', 'pump-room', 'wash-bay', 'cooling-tower', 'canteen', 'roof-drain'],
    meter: ['hall-a', 'hall-b', 'cooling', 'canteen'],
    climate: [
      'hall-a',
      'hall-b',
      'hall-c',
      'paint-shop',
      'warehouse',
      'cold-store',
      'control-room',
      'boiler-room',
      'compressor-room',
      'loading-bay',
    ],
    'door-lock': ['gate-north', 'gate-south', 'control-room', 'chemical-store'],
    camera: ['gate-north', 'gate-south', 'hall-a', 'hall-b', 'warehouse', 'loading-bay'],
  },
};

const types: Readonly<Record<NodeKind, { readonly type: string; readonly firmware: string }>> = {
  'leak-probe': { type: 'leak_probe', firmware: '2.0.3' },
  meter: { type: 'water_meter', firmware: '1.7.0' },
  climate: { type: 'temperature_sensor', firmware: '1.2.3' },
  'door-lock': { type: 'door_lock', firmware: '3.1.0' },
  camera: { type: 'camera', firmware: '4.0.1' },
};

function spoken(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1).replaceAll('-', ' ');
}

export function fleetDevices(preset: Preset): FleetDevice[] {
  return nodeKinds.flatMap((kind) =>
    places[preset][kind].map((place) => ({
      deviceId: `sim-${preset}-${place}-${kind}`,
      name: `${spoken(place)} ${kind.replace('-', ' ')} (simulated ${preset})`,
      kind,
      type: types[kind].type,
      location: spoken(place),
      firmwareVersion: types[kind].firmware,
      hardwareVersion: 'v2.1',
    })),
  );
}

/** As many as wanted: the same places over and over, numbered. */
export function numbered(devices: readonly FleetDevice[], count: number): FleetDevice[] {
  return Array.from({ length: Math.ceil(count / devices.length) }, (_, round) =>
    round === 0
      ? devices
      : devices.map((device) => ({
          ...device,
          deviceId: `${device.deviceId}-${round + 1}`,
          name: `${device.name} ${round + 1}`,
        })),
  )
    .flat()
    .slice(0, count);
}
