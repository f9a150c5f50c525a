// What is typed at a running fleet, on nodes whose link only remembers.

import { expect, onTestFinished, test } from 'vitest';
import { Fleet } from '../../src/simulator/fleet.ts';
import type { Link } from '../../src/simulator/link.ts';
import { SimulatedNode } from '../../src/simulator/node.ts';
import { fleetDevices } from '../../src/simulator/presets.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { obeyLine } from '../../src/tools/fleet-control.ts';

class MemoryLink implements Link {
  isReachable = true;
  readonly readings: unknown[] = [];

  async sendReading(reading: { readonly fields: unknown }) {
    this.readings.push(reading.fields);
    return { kind: 'acknowledged' } as const;
  }

  async sendHeartbeat() {
    return { kind: 'acknowledged' } as const;
  }

  setReach(isReachable: boolean) {
    this.isReachable = isReachable;
  }

  figures() {
    return { isConnected: this.isReachable, reconnects: 0, lastError: undefined };
  }

  async close() {}
}

function startHome(intervalMs: number) {
  const links = new Map<string, MemoryLink>();
  const members = fleetDevices('home').map((device) => {
    const link = new MemoryLink();
    links.set(device.deviceId, link);
    const random = seededRandom(1);
    const node = SimulatedNode.start({
      kind: device.kind,
      intervalMs,
      lossShare: 0,
      random,
      openLink: () => link,
    });
    return { device, node, transport: 'mqtt' as const };
  });
  const fleet = new Fleet(members);
  onTestFinished(() => fleet.stop(0));
  return { fleet, readings: (id: string) => links.get(id)?.readings ?? [] };
}

test('a probe gets wet and dry by a part of its name', async () => {
  const { fleet, readings } = startHome(3_600_000);
  const probe = 'sim-home-kitchen-leak-probe';
  expect(obeyLine(fleet, 'wet kitchen')).toBe(`${probe} lies in water`);
  expect(obeyLine(fleet, ' DRY  Kitchen ')).toBe(`${probe} is dry`);
  expect(readings(probe)).toMatchObject([{ wet: false }, { wet: true }, { wet: false }]);
  expect(obeyLine(fleet, 'wet porch')).toBe('wet: no leak probe named porch');
  expect(obeyLine(fleet, 'wet leak')).toMatch(/kitchen.*bathroom.*laundry.*\?$/);
});

test('a device fails and is mended, and list shows it', () => {
  const { fleet } = startHome(3_600_000);
  expect(obeyLine(fleet, 'fail porch')).toBe('sim-home-porch-camera has failed');
  expect(fleet.figures()).toMatchObject({ devices: 9, connected: 8, failed: 1 });
  expect(obeyLine(fleet, 'list')).toMatch(/sim-home-porch-camera +camera +mqtt +failed/);
  expect(obeyLine(fleet, 'mend porch')).toBe('sim-home-porch-camera is back');
  expect(fleet.figures()).toMatchObject({ connected: 9, failed: 0 });
});

test('a device loses its network, and measures on', async () => {
  const { fleet } = startHome(5);
  expect(obeyLine(fleet, 'cut porch')).toBe('sim-home-porch-camera has no network, and measures on');
  expect(fleet.figures()).toMatchObject({ connected: 8, failed: 0 });
  const [camera] = fleet.find('porch');
  const { sent = 0 } = camera?.node.figures() ?? {};
  await expect.poll(() => camera?.node.figures().sent).toBeGreaterThan(sent + 3);
  // What has no power has no network either.
  obeyLine(fleet, 'fail porch');
  obeyLine(fleet, 'join porch');
  expect(fleet.figures()).toMatchObject({ connected: 8, failed: 1 });
  obeyLine(fleet, 'mend porch');
  expect(fleet.figures()).toMatchObject({ connected: 9, failed: 0 });
});

test('the whole fleet pauses, resumes and changes its rate', async () => {
  const { fleet } = startHome(3_600_000);
  expect(fleet.figures().sent).toBe(9);
  expect(obeyLine(fleet, 'pause')).toBe('9 devices measure nothing');
  expect(obeyLine(fleet, 'rate 5')).toBe('9 devices measure every 5 ms');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(fleet.figures().sent).toBe(9);
  expect(obeyLine(fleet, 'resume')).toBe('9 devices measure again');
  await expect.poll(() => fleet.figures().sent).toBeGreaterThan(30);
  expect(obeyLine(fleet, 'rate soon')).toMatch(/^rate: expected milliseconds/);
});

test('an unknown word is answered with what there is, and quit ends', () => {
  const { fleet } = startHome(3_600_000);
  expect(obeyLine(fleet, 'explode')).toMatch(/^unknown: explode; list \| fail NAME/);
  expect(obeyLine(fleet, 'toString')).toMatch(/^unknown/);
  expect(obeyLine(fleet, '')).toBe('');
  expect(obeyLine(fleet, 'quit')).toBeUndefined();
});
