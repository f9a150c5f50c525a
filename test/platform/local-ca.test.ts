import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type LocalCaOptions, openLocalCa } from '../../src/platform/local-ca.ts';
import { createLog } from '../../src/platform/log.ts';
import { tempFolder } from '../support/temp.ts';

const dayMs = 86_400_000;
const startMs = Date.UTC(2026, 0, 1);

function optionsAt(
  folder: string,
  wallMs: number,
  names = ['localhost', 'pi.local', '192.168.1.5'],
): LocalCaOptions {
  return {
    folder: join(folder, 'tls'),
    names,
    clock: { wallMs: () => wallMs },
    log: createLog('silent'),
  };
}

function leafOf(certificates: string): X509Certificate {
  return new X509Certificate(certificates);
}

test('the first start makes a CA for ten years and a certificate for 397 days, keys for the gateway alone', async () => {
  const folder = tempFolder();
  const identity = await openLocalCa(optionsAt(folder, startMs));
  const ca = new X509Certificate(readFileSync(identity.caPath));
  const leaf = leafOf(identity.certificates);
  expect(ca.ca).toBe(true);
  expect(ca.verify(ca.publicKey)).toBe(true);
  expect(leaf.ca).toBe(false);
  expect(leaf.checkIssued(ca) && leaf.verify(ca.publicKey)).toBe(true);
  expect(leaf.publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
  expect(Date.parse(leaf.validTo) - startMs).toBe(397 * dayMs);
  expect(Date.parse(ca.validTo) - startMs).toBe(3653 * dayMs);
  expect(leaf.checkHost('pi.local')).toBe('pi.local');
  expect(leaf.checkIP('192.168.1.5')).toBe('192.168.1.5');
  for (const name of ['ca.key', 'server.key']) {
    expect(statSync(join(folder, 'tls', name)).mode & 0o777).toBe(0o600);
  }
  expect(readdirSync(join(folder, 'tls')).sort()).toEqual(['ca.crt', 'ca.key', 'server.crt', 'server.key']);
});

test('a later start changes nothing, one shortly before expiry or with new names renews under the same CA', async () => {
  const folder = tempFolder();
  const first = await openLocalCa(optionsAt(folder, startMs));
  const same = await openLocalCa(optionsAt(folder, startMs + 300 * dayMs));
  expect(same).toEqual(first);
  const renewed = await openLocalCa(optionsAt(folder, startMs + 368 * dayMs));
  expect(leafOf(renewed.certificates).serialNumber).not.toBe(leafOf(first.certificates).serialNumber);
  const moved = await openLocalCa(optionsAt(folder, startMs + 368 * dayMs, ['localhost', '10.0.0.7']));
  expect(leafOf(moved.certificates).checkIP('10.0.0.7')).toBe('10.0.0.7');
  const ca = new X509Certificate(readFileSync(first.caPath));
  for (const { certificates } of [renewed, moved])
    expect(leafOf(certificates).verify(ca.publicKey)).toBe(true);
});

test.each(['server.crt', 'server.key', 'ca.crt', 'ca.key'])(
  'a damaged %s is set aside and made anew',
  async (name) => {
    const folder = tempFolder();
    await openLocalCa(optionsAt(folder, startMs));
    writeFileSync(join(folder, 'tls', name), 'torn');
    const identity = await openLocalCa(optionsAt(folder, startMs));
    const ca = new X509Certificate(readFileSync(identity.caPath));
    expect(leafOf(identity.certificates).verify(ca.publicKey)).toBe(true);
    expect(readdirSync(join(folder, 'tls'))).toContain(`${name}.damaged`);
  },
);

test('without names given, the certificate carries those of this machine', async () => {
  const folder = tempFolder();
  const { names: _names, ...options } = optionsAt(folder, startMs);
  const leaf = leafOf((await openLocalCa(options)).certificates);
  expect(leaf.checkHost('localhost')).toBe('localhost');
  expect(leaf.checkIP('127.0.0.1')).toBe('127.0.0.1');
});

test('a first start in 1970 makes certificates that are good once the clock is right', async () => {
  const folder = tempFolder();
  const { certificates, caPath } = await openLocalCa(optionsAt(folder, 0));
  for (const made of [leafOf(certificates), new X509Certificate(readFileSync(caPath))]) {
    expect(Date.parse(made.validFrom)).toBeLessThanOrEqual(startMs);
    expect(Date.parse(made.validTo)).toBeGreaterThanOrEqual(startMs + 397 * dayMs);
  }
});
