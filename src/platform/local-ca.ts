// The gateway's own certificate authority: made at the first start, so that a device can trust the gateway without
// the internet. The server's certificate lasts 397 days and is renewed when fewer than 30 are left or the machine's
// names changed. The CA lasts ten years; with fewer than two left it gets a new certificate for the same key, so that
// devices which trust the old one have two years to be given the new one, and until then trust what it issues. Keys
// are readable by the gateway alone; files are replaced whole. A damaged file is set aside and made anew: TLS must
// not keep the gateway from starting. The X.509 library is loaded only when something must be issued.

import { createPrivateKey, sign, verify, webcrypto, X509Certificate } from 'node:crypto';
import { lstat, readFile } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { Clock } from './clock.ts';
import { clearForDirectory, makeDirectory, moveAside, replaceFile } from './disk.ts';
import { errorCode } from './errors.ts';
import type { Log } from './log.ts';

export interface TlsIdentity {
  /** PEM. */
  readonly key: string;
  /** PEM: the server's certificate, then those that vouch for it. */
  readonly certificates: string;
}

interface LocalIdentity extends TlsIdentity {
  /** PEM, for devices to trust. */
  readonly ca: string;
  readonly caPath: string;
}

export interface LocalCaOptions {
  /** Created when missing. */
  readonly folder: string;
  readonly clock: Pick<Clock, 'wallMs'>;
  /** Nothing is renewed for its dates while they mean nothing. Default true. */
  readonly isDateKnown?: boolean;
  readonly log: Log;
  /** DNS names and addresses of the certificate; the machine's own by default. */
  readonly names?: readonly string[];
}

interface Issued {
  readonly key: string;
  readonly certificate: string;
}

const dayMs = 86_400_000;
// A clock that says less was never set; a certificate made by it would have ended before it is first used.
const earliestMs = Date.UTC(2026, 0, 1);
const caDays = 3653;
const caRenewDays = 730;
const leafDays = 397;
const renewDays = 30;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

export async function openLocalCa(options: LocalCaOptions): Promise<LocalIdentity> {
  const { folder, log, clock, isDateKnown = true } = options;
  if (await clearForDirectory(folder)) log.warn({ event: 'tls-files-damaged', name: folder });
  await makeDirectory(folder, 0o700);
  const names = options.names ?? machineNames();
  const nowMs = Math.max(clock.wallMs(), earliestMs);
  let ca = await readPair(folder, 'ca', log);
  if (ca === undefined) {
    ca = await issueCa(nowMs);
    await writePair(folder, 'ca', ca, log);
    log.debug({ event: 'tls-ca-made' });
  } else if (isDateKnown && isOutdatedCa(ca.certificate, nowMs)) {
    await keepPreviousCa(folder, ca, log);
    ca = await issueCa(nowMs, ca);
    await writePair(folder, 'ca', ca, log);
    log.warn({ event: 'tls-ca-renewed' }, 'Give devices the new ca.crt before the old one ends');
  }
  let leaf = await readPair(folder, 'server', log);
  const reason =
    leaf === undefined
      ? 'missing'
      : renewalReason(leaf.certificate, ca.certificate, names, isDateKnown ? nowMs : undefined);
  if (leaf === undefined || reason !== undefined) {
    leaf = await issueLeaf(ca, names, nowMs);
    await writePair(folder, 'server', leaf, log);
    // At the first start this is no news, and the first line of the log is to name the ports.
    log[reason === 'missing' ? 'debug' : 'info']({ event: 'tls-certificate-made', reason });
  }
  return {
    key: leaf.key,
    certificates: leaf.certificate + ca.certificate,
    ca: ca.certificate,
    caPath: join(folder, 'ca.crt'),
  };
}

export function machineNames(): string[] {
  const host = hostname().split('.')[0]?.toLowerCase() ?? '';
  const names = new Set(['localhost', '127.0.0.1', '::1']);
  if (/^[a-z0-9-]{1,63}$/.test(host)) {
    names.add(host);
    names.add(`${host}.local`);
  }
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address } of addresses ?? []) if (!address.startsWith('fe80:')) names.add(address);
  }
  return [...names].sort();
}

/** Undefined when the files are missing, or damaged and now set aside. */
async function readPair(folder: string, name: string, log: Log): Promise<Issued | undefined> {
  const keyPath = join(folder, `${name}.key`);
  const certificatePath = join(folder, `${name}.crt`);
  const key = await readText(keyPath);
  const certificate = await readText(certificatePath);
  if (key !== undefined && certificate !== undefined && belongTogether(key, certificate)) {
    return { key, certificate };
  }
  const there: string[] = [];
  for (const path of [keyPath, certificatePath]) if (await isThere(path)) there.push(path);
  if (there.length === 0) return undefined;
  log.warn({ event: 'tls-files-damaged', name });
  for (const path of there) await moveAside(path);
  return undefined;
}

/** Also what cannot be read: a folder, a link to nowhere. */
async function isThere(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  );
}

/** What a path answers that is no file of ours; anything else (no permission) says nothing of it. */
const unreadableCodes: readonly (string | undefined)[] = ['ENOENT', 'EISDIR', 'ELOOP', 'ENXIO', 'EIO'];

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (unreadableCodes.includes(errorCode(error))) return undefined;
    throw error;
  }
}

/** Tried, because a key file says twice which key it is: a damaged one may still look like that of the certificate. */
function belongTogether(key: string, certificate: string): boolean {
  try {
    const { publicKey } = new X509Certificate(certificate);
    const text = Buffer.from('any text');
    return verify('sha256', text, publicKey, sign('sha256', text, createPrivateKey(key)));
  } catch {
    return false;
  }
}

/** Soon at its end, or made by a clock that was ahead. */
export function isOutdatedCa(ca: string, nowMs: number): boolean {
  const { validFrom, validTo } = new X509Certificate(ca);
  return Date.parse(validFrom) > nowMs || Date.parse(validTo) - nowMs < caRenewDays * dayMs;
}

/** For `iotflow doctor`, which says until when devices may go on with it. */
async function keepPreviousCa(folder: string, { certificate }: Issued, log: Log): Promise<void> {
  await replaceFile(join(folder, 'ca.previous.crt'), certificate, 0o644).catch((error: unknown) => {
    log.error({ event: 'tls-files-unwritten', name: 'ca.previous', err: error });
  });
}

/**
 * Why a server's certificate must be made anew; undefined while it is good.
 * @param nowMs Undefined while the date is not known.
 */
export function renewalReason(
  leaf: string,
  ca: string,
  names: readonly string[],
  nowMs: number | undefined,
): 'other-ca' | 'expiring' | 'not-yet-valid' | 'names-changed' | undefined {
  const certificate = new X509Certificate(leaf);
  if (!certificate.verify(new X509Certificate(ca).publicKey)) return 'other-ca';
  if (nowMs !== undefined) {
    if (Date.parse(certificate.validTo) - nowMs < renewDays * dayMs) return 'expiring';
    if (Date.parse(certificate.validFrom) > nowMs) return 'not-yet-valid';
  }
  const present = names.every((name) =>
    isAddress(name) ? certificate.checkIP(name) !== undefined : certificate.checkHost(name) !== undefined,
  );
  return present ? undefined : 'names-changed';
}

/** @param previous Whose name and key it keeps: what either has signed is good by both. */
async function issueCa(nowMs: number, previous?: Issued): Promise<Issued> {
  const x509 = await loadX509();
  const keys = previous
    ? await importedKeys(previous)
    : await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const name = previous
    ? new x509.X509Certificate(previous.certificate).subject
    : `CN=IoTFlow Edge ${hostname().replace(/[^\w.-]/g, '')} CA`;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name,
    keys,
    signingAlgorithm: algorithm,
    // A clock that was never set must not make a certificate from the future; see notBefore.
    notBefore: notBefore(nowMs),
    notAfter: new Date(nowMs + caDays * dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { key: await pemKey(keys.privateKey), certificate: `${certificate.toString('pem')}\n` };
}

/** A certificate of `ca` for these names, good for 397 days from `nowMs` on, and a day before it. */
export async function issueLeaf(ca: Issued, names: readonly string[], nowMs: number): Promise<Issued> {
  const x509 = await loadX509();
  const issuer = new x509.X509Certificate(ca.certificate);
  const { privateKey: signingKey } = await importedKeys(ca);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=IoTFlow Edge gateway',
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    notBefore: notBefore(nowMs),
    notAfter: new Date(nowMs + leafDays * dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isAddress(value) ? ('ip' as const) : ('dns' as const), value })),
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return { key: await pemKey(keys.privateKey), certificate: `${certificate.toString('pem')}\n` };
}

/** Devices without a battery-backed clock are often behind: a day of grace. */
function notBefore(nowMs: number): Date {
  return new Date(nowMs - dayMs);
}

async function loadX509() {
  // @peculiar/x509 wants the Reflect metadata API to be there first.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);
  return x509;
}

async function importedKeys({ key, certificate }: Issued) {
  const privateDer = createPrivateKey(key).export({ format: 'der', type: 'pkcs8' });
  const publicDer = new X509Certificate(certificate).publicKey.export({ format: 'der', type: 'spki' });
  return {
    privateKey: await webcrypto.subtle.importKey('pkcs8', privateDer, algorithm, true, ['sign']),
    publicKey: await webcrypto.subtle.importKey('spki', publicDer, algorithm, true, ['verify']),
  };
}

async function pemKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ format: 'pem', type: 'pkcs8' })
    .toString();
}

function isAddress(name: string): boolean {
  return name.includes(':') || /^[\d.]+$/.test(name);
}

/**
 * The key first: a certificate without its key would be set aside at the next start, and that is the worst of it.
 * What a full disk does not take is used all the same, and made anew at the next start.
 */
async function writePair(folder: string, name: string, pair: Issued, log: Log): Promise<void> {
  try {
    await replaceFile(join(folder, `${name}.key`), pair.key, 0o600);
    await replaceFile(join(folder, `${name}.crt`), pair.certificate, 0o644);
  } catch (error) {
    log.error({ event: 'tls-files-unwritten', name, err: error }, 'Good until the next start');
  }
}
