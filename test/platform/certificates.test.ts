import { execFile } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Certificates, type CertificatesOptions } from '../../src/platform/certificates.ts';
import { issueLeaf, openLocalCa } from '../../src/platform/local-ca.ts';
import { createLog } from '../../src/platform/log.ts';
import { hasCommand } from '../support/debian.ts';
import { tempFolder } from '../support/temp.ts';

const dayMs = 86_400_000;
// Certificates count seconds.
const nowMs = Math.floor(Date.now() / 1000) * 1000;
const run = promisify(execFile);

interface House {
  readonly folder: string;
  readonly certificates: Certificates;
  /** The gateway's clock goes on; that of the clients is the machine's. */
  passDays(days: number): void;
  names: string[];
  isDateKnown: boolean;
}

async function open(options: Partial<CertificatesOptions> = {}): Promise<House> {
  let passedMs = 0;
  const folder = options.folder ?? join(tempFolder(), 'tls');
  const state = { names: ['localhost', '127.0.0.1'], isDateKnown: true };
  const certificates = await Certificates.open({
    folder,
    clock: { wallMs: () => nowMs + passedMs, monotonicMs: () => passedMs },
    isDateKnown: () => state.isDateKnown,
    names: () => state.names,
    log: createLog('silent'),
    ...options,
  });
  onTestFinished(() => certificates.close());
  const passDays = (days: number) => {
    passedMs += days * dayMs;
  };
  return Object.assign(state, { folder, certificates, passDays });
}

/** Echoes. */
async function serve({ certificates }: House): Promise<number> {
  const server = createServer(certificates.serverOptions(), (socket) => socket.pipe(socket));
  certificates.follow(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** A client that trusts `ca` alone; rejects when it does not like what it is shown. */
async function dial(port: number, ca: string, name = 'localhost'): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, ca, servername: name });
  onTestFinished(() => void socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

async function echo(socket: TLSSocket, text: string): Promise<string> {
  socket.write(text);
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  return chunk.toString();
}

/** What OpenSSL's client says, on a day to come, to what it is shown. */
async function verdictOf(port: number, caFile: string, atMs: number): Promise<string> {
  const connectTo = [
    '-connect',
    `127.0.0.1:${port}`,
    '-servername',
    'localhost',
    '-verify_hostname',
    'localhost',
  ];
  const trust = ['-CAfile', caFile, '-attime', String(atMs / 1000), '-x509_strict', '-verify_return_error'];
  const client = run('openssl', ['s_client', ...connectTo, ...trust]);
  // It stays connected until its input ends.
  client.child.stdin?.end();
  const asked = client.then(
    ({ stdout }) => stdout,
    (error: { stdout: string }) => error.stdout,
  );
  return /Verify return code: (.*)/.exec(await asked)?.[1] ?? 'no verdict';
}

function serialOf(socket: TLSSocket): string {
  return socket.getPeerCertificate().serialNumber;
}

describe('a certificate of the gateway’s own authority', () => {
  test('is renewed while it runs: new connections see the new one, those that are open go on, the CA stays', async () => {
    const house = await open();
    const port = await serve(house);
    const ca = house.certificates.ca ?? '';
    const before = await dial(port, ca);
    await house.certificates.check();
    expect(house.certificates.stats().renewals).toBe(0);
    house.passDays(366);
    await house.certificates.check();
    expect(house.certificates.stats().renewals).toBe(0);
    house.passDays(2);
    await house.certificates.check();
    expect(house.certificates.stats()).toMatchObject({ renewals: 1, leftMs: 397 * dayMs });
    expect(await echo(before, 'still here')).toBe('still here');
    expect(house.certificates.ca).toBe(ca);
    // A client of today sees that it is another one, and why it does not take it.
    await expect(dial(port, ca)).rejects.toMatchObject({ code: 'CERT_NOT_YET_VALID' });
  });

  const hasOpenssl = hasCommand('openssl');

  test.skipIf(!hasOpenssl)('is taken by who trusts the CA, year after year (openssl)', async () => {
    const house = await open();
    const port = await serve(house);
    const caFile = join(house.folder, 'ca.crt');
    for (let days = 0; days < 5 * 365; days += 200) {
      await house.certificates.check();
      expect(await verdictOf(port, caFile, nowMs + days * dayMs), `after ${days} days`).toBe('0 (ok)');
      house.passDays(200);
    }
    expect(house.certificates.stats().renewals).toBe(4);
  });

  test('is made anew when the machine’s names change, and not each time an address comes and goes', async () => {
    const house = await open();
    const port = await serve(house);
    const ca = house.certificates.ca ?? '';
    const before = await dial(port, ca);
    await expect(dial(port, ca, 'attic.local')).rejects.toMatchObject({
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    });
    house.names = ['localhost', 'attic.local', '192.168.7.7'];
    await house.certificates.check();
    const after = await dial(port, ca, 'attic.local');
    expect(serialOf(after)).not.toBe(serialOf(before));
    expect(await echo(before, 'a')).toBe('a');
    house.names = ['localhost', '192.168.7.8'];
    await house.certificates.check();
    expect(house.certificates.stats().renewals).toBe(1);
    house.passDays(1 / 24);
    await house.certificates.check();
    expect(house.certificates.stats().shown.names).toEqual(['localhost', '192.168.7.8']);
  });

  test('is not judged by a date nobody knows, and one from the future is made anew once it is known', async () => {
    const house = await open();
    const port = await serve(house);
    house.isDateKnown = false;
    house.passDays(2000);
    await house.certificates.check();
    expect(house.certificates.stats()).toMatchObject({ renewals: 0, leftMs: undefined });
    house.names = ['localhost', 'pi'];
    await house.certificates.check();
    await expect(dial(port, house.certificates.ca ?? '')).rejects.toMatchObject({
      code: 'CERT_NOT_YET_VALID',
    });
    house.passDays(-2000);
    house.isDateKnown = true;
    await house.certificates.check();
    expect(await echo(await dial(port, house.certificates.ca ?? ''), 'a')).toBe('a');
  });

  test.skipIf(!hasOpenssl)(
    'outlives its CA’s certificate: whoever trusts the old one or the new one trusts the gateway (openssl)',
    async () => {
      const house = await open();
      const port = await serve(house);
      const [oldCa, newCa] = ['ca.previous.crt', 'ca.crt'].map((name) => join(house.folder, name));
      const first = house.certificates.ca;
      const years = 9 * 365;
      house.passDays(years);
      await house.certificates.check();
      expect(house.certificates.ca).not.toBe(first);
      expect(readFileSync(oldCa ?? '', 'utf8')).toBe(first);
      for (const ca of [oldCa, newCa]) {
        expect(await verdictOf(port, ca ?? '', nowMs + years * dayMs), ca).toBe('0 (ok)');
      }
      house.passDays(1_000);
      await house.certificates.check();
      const laterMs = nowMs + (years + 1_000) * dayMs;
      expect(await verdictOf(port, newCa ?? '', laterMs)).toBe('0 (ok)');
      expect(await verdictOf(port, oldCa ?? '', laterMs)).not.toBe('0 (ok)');
      expect(statSync(join(house.folder, 'ca.key')).mode & 0o777).toBe(0o600);
    },
  );

  test('goes on when the new one cannot be written, and is tried again', async () => {
    const house = await open();
    const port = await serve(house);
    house.passDays(390);
    renameSync(house.folder, `${house.folder}.gone`);
    writeFileSync(house.folder, 'in the way');
    chmodSync(house.folder, 0o400);
    await house.certificates.check();
    expect(house.certificates.stats().leftMs).toBeGreaterThan(0);
    expect(port).toBeGreaterThan(0);
  });

  test('is not spoken to below TLS 1.2', async () => {
    const house = await open();
    const port = await serve(house);
    const socket = connect({
      host: '127.0.0.1',
      port,
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
      rejectUnauthorized: false,
    });
    await expect(once(socket, 'secureConnect')).rejects.toThrow();
  });
});

describe('a certificate of the owner’s own', () => {
  /** Of an authority that is not the gateway's. */
  async function bring(names = ['localhost'], atMs = nowMs) {
    const folder = tempFolder();
    const { ca } = await openLocalCa({
      folder: join(folder, 'ca'),
      clock: { wallMs: () => nowMs },
      names,
      log: createLog('silent'),
    });
    const key = readFileSync(join(folder, 'ca', 'ca.key'), 'utf8');
    const own = { certPath: join(folder, 'own.crt'), keyPath: join(folder, 'own.key') };
    const renew = async (ms = atMs) => {
      const leaf = await issueLeaf({ key, certificate: ca }, names, ms);
      writeFileSync(own.certPath, leaf.certificate);
      writeFileSync(own.keyPath, leaf.key, { mode: 0o600 });
      return leaf;
    };
    await renew();
    return { folder, ca, own, renew };
  }

  test('is shown instead, and read again when its files change, without ending a connection', async () => {
    const { ca, own, renew } = await bring();
    const house = await open({ own });
    const port = await serve(house);
    expect(house.certificates.ca).toBeUndefined();
    expect(house.certificates.stats()).toMatchObject({
      shown: { source: 'own', authority: null },
      fault: undefined,
    });
    // The gateway's own authority is not needed.
    expect(existsSync(house.folder)).toBe(false);
    const before = await dial(port, ca);
    await house.certificates.check();
    expect(house.certificates.stats().renewals).toBe(0);
    await renew();
    await house.certificates.check();
    expect(serialOf(await dial(port, ca))).not.toBe(serialOf(before));
    expect(await echo(before, 'still here')).toBe('still here');
  });

  test('tells by which names the machine is reached, and by no others', async () => {
    const { own } = await bring(['gw.example.com', '*.home.example', '192.168.1.5']);
    const { certificates } = await open({ own });
    const names = [
      'gw.example.com',
      'attic.home.example',
      'evil.example',
      'home.example',
      'a.b.home.example',
    ];
    expect(names.map((name) => certificates.isFor(name))).toEqual([true, true, false, false, false]);
  });

  test('with a new certificate whose key is still to come is not used until both fit', async () => {
    const { ca, own, renew } = await bring();
    const house = await open({ own });
    const port = await serve(house);
    const before = serialOf(await dial(port, ca));
    copyFileSync(own.keyPath, `${own.keyPath}.old`);
    const { key } = await renew();
    renameSync(`${own.keyPath}.old`, own.keyPath);
    await house.certificates.check();
    expect(house.certificates.stats().fault).toBeUndefined();
    await house.certificates.check();
    expect(house.certificates.stats().fault).toContain('is not the key of the first certificate');
    expect(serialOf(await dial(port, ca))).toBe(before);
    writeFileSync(own.keyPath, key);
    await house.certificates.check();
    expect(house.certificates.stats().fault).toBeUndefined();
    expect(serialOf(await dial(port, ca))).not.toBe(before);
  });

  test('whose dates are over is shown all the same: that is for clients to judge', async () => {
    const { ca, own } = await bring(['localhost'], nowMs - 500 * dayMs);
    const house = await open({ own });
    expect(house.certificates.stats().leftMs).toBeLessThan(0);
    await expect(dial(await serve(house), ca)).rejects.toMatchObject({ code: 'CERT_HAS_EXPIRED' });
  });

  type Own = { readonly certPath: string; readonly keyPath: string };
  test.each<[string, (own: Own) => void | Promise<void>, RegExp]>([
    ['whose key everybody may read', ({ keyPath }) => chmodSync(keyPath, 0o644), /chmod o-rwx/],
    ['that is not there', ({ certPath }) => rmSync(certPath), /tls\.cert_path .* cannot be read: ENOENT/],
    ['whose key is not there', ({ keyPath }) => rmSync(keyPath), /tls\.key_path .* cannot be read: ENOENT/],
    ['that is no certificate', ({ certPath }) => writeFileSync(certPath, 'x'), /holds no certificate in PEM/],
    ['whose key is none', ({ keyPath }) => writeFileSync(keyPath, 'x'), /holds no private key in PEM/],
    [
      'whose key has a passphrase',
      async ({ keyPath }) => {
        const { createPrivateKey } = await import('node:crypto');
        const secret = { format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' } as const;
        writeFileSync(keyPath, createPrivateKey(readFileSync(keyPath)).export(secret));
      },
      /is encrypted/,
    ],
    ['that is a disk image', ({ certPath }) => writeFileSync(certPath, Buffer.alloc(300_000)), /no PEM file/],
  ])('%s is refused in words, and that of the own authority is shown', async (_what, spoil, words) => {
    const { own } = await bring();
    await spoil(own);
    const house = await open({ own });
    expect(house.certificates.stats().fault).toMatch(words);
    const socket = await dial(await serve(house), house.certificates.ca ?? '');
    expect(await echo(socket, 'a')).toBe('a');
  });

  test('that was refused at the start is used once it is mended', async () => {
    const { ca, own, renew } = await bring();
    rmSync(own.keyPath);
    const house = await open({ own });
    const port = await serve(house);
    await renew();
    await house.certificates.check();
    expect(house.certificates.stats()).toMatchObject({ shown: { source: 'own' }, fault: undefined });
    expect(await echo(await dial(port, ca), 'a')).toBe('a');
  });
});
