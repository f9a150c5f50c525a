// Names and certificates: of the servers the gateway talks to, and its own.

import { X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { connect, type PeerCertificate } from 'node:tls';
import type { Config } from '../../config/schema.ts';
import { bridgeOptions } from '../../config/stage-options.ts';
import { errorCode } from '../../platform/errors.ts';
import { readOwnCertificate } from '../../platform/own-certificate.ts';
import { type Check, type Finding, fail, networkTodo, ok, skipped, warn } from './check.ts';

const dayMs = 86_400_000;
/** The gateway renews its own with fewer days left than this. */
const renewDays = 30;
/** Most authorities renew with 30 days left; two weeks mean that it did not work. */
const warnDays = 14;

/** Servers somebody asked for; without credentials nothing is sent to Flume or VoiceMonkey. */
function hostsOf(config: Config): string[] {
  const { influx, flume, voicemonkey } = config;
  const urls = [
    influx.url,
    ...(bridgeOptions(config)?.urls ?? []),
    flume.clientId === undefined ? undefined : flume.baseUrl,
    voicemonkey.token === undefined ? undefined : voicemonkey.baseUrl,
  ];
  const hosts = urls.flatMap((url) =>
    url === undefined ? [] : new URL(url).hostname.replace(/^\[|\]$/g, ''),
  );
  return [...new Set(hosts)];
}

export type Lookup = (host: string) => Promise<{ readonly address: string }>;

/** @param resolve as the rest of the gateway does by default: through the system, /etc/hosts and all */
export function dnsCheck(config: Config, resolve: Lookup = lookup): Check {
  return {
    name: 'dns',
    run: async () => {
      const names = hostsOf(config).filter((host) => isIP(host) === 0);
      if (names.length === 0) return [skipped('no server is configured by name')];
      return await Promise.all(
        names.map(async (host) => {
          try {
            return ok(`${host} is ${(await resolve(host)).address}`);
          } catch (error) {
            const code = errorCode(error) ?? String(error);
            const todo =
              code === 'ENOTFOUND'
                ? 'look for a typing mistake; if other names fail too, see /etc/resolv.conf'
                : 'see /etc/resolv.conf and the router';
            return fail(`${host} cannot be found: ${code}`, todo);
          }
        }),
      );
    },
  };
}

export function ownCertificateCheck({ dataDir, tls }: Config, wallMs: number): Check {
  return {
    name: 'tls',
    run: async () => {
      const { certPath, keyPath } = tls;
      if (certPath !== undefined && keyPath !== undefined) {
        const read = await readOwnCertificate({ certPath, keyPath });
        if ('fault' in read) return [fail(read.fault, 'mend it; a running gateway reads it again by itself')];
        const todo = 'renew it; a running gateway reads it again by itself';
        return [ownFinding(new X509Certificate(read.certificates), wallMs, [], todo)];
      }
      const folder = join(dataDir, 'tls');
      const file = join(folder, 'server.crt');
      let certificate: X509Certificate;
      try {
        certificate = new X509Certificate(await readFile(file));
      } catch (error) {
        const code = errorCode(error) ?? '';
        if (code === 'ENOENT') return [skipped('the certificate is made at the first start')];
        if (code === 'EACCES') return [skipped(`${file} may not be read by this user`)];
        return [fail(`${file} is damaged`, 'restart the gateway: it is made anew')];
      }
      const restart = 'restart the gateway: it is renewed then';
      return [
        ownFinding(certificate, wallMs, lanAddresses(), restart),
        ...(await previousCaFindings(folder, wallMs)),
      ];
    },
  };
}

/** The authority's certificate was renewed: who trusts the one of before needs the new one before that ends. */
async function previousCaFindings(folder: string, wallMs: number): Promise<Finding[]> {
  try {
    const { validTo } = new X509Certificate(await readFile(join(folder, 'ca.previous.crt')));
    const endsMs = Date.parse(validTo);
    if (endsMs < wallMs) return [];
    const day = new Date(endsMs).toISOString().slice(0, 10);
    const message = `devices that trust the authority's certificate of before refuse the gateway from ${day} on`;
    return [warn(message, `give them ${join(folder, 'ca.crt')}`)];
  } catch {
    return [];
  }
}

function lanAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => address);
}

function ownFinding(
  certificate: X509Certificate,
  wallMs: number,
  addresses: readonly string[],
  todo: string,
): Finding {
  const days = Math.floor((Date.parse(certificate.validTo) - wallMs) / dayMs);
  if (Date.parse(certificate.validFrom) > wallMs) {
    return fail(`the certificate is valid only from ${certificate.validFrom}`, 'set the clock, then restart');
  }
  if (days < 0) return fail(`the certificate ended ${-days} days ago: devices refuse it`, todo);
  const missing = addresses.filter((address) => certificate.checkIP(address) === undefined);
  if (missing.length > 0) return warn(`the certificate does not name ${missing.join(', ')}`, todo);
  if (days < renewDays) return warn(`the certificate ends in ${days} days`, todo);
  return ok(`the certificate is good for ${days} days`);
}

export function influxCertificateCheck({ influx }: Config, wallMs: number): Check {
  return {
    name: 'influxdb tls',
    run: async (signal) => {
      if (influx.url === undefined) return [skipped('influx.url is not set')];
      const url = new URL(influx.url);
      if (url.protocol !== 'https:') {
        const isNear = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
        return isNear
          ? [skipped('it is on this machine')]
          : [warn('influx.url is not https: the token travels readable', 'use https if the server can')];
      }
      return [await peerFinding(url, wallMs, signal)];
    },
  };
}

const chainTodos: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'renew it on the server',
  CERT_NOT_YET_VALID: 'set the clock of this machine',
  ERR_TLS_CERT_ALTNAME_INVALID: 'use the name the certificate is for in influx.url',
};

function peerFinding(url: URL, wallMs: number, signal: AbortSignal): Promise<Finding> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return new Promise((resolve) => {
    const socket = connect({
      host,
      port: url.port === '' ? 443 : Number(url.port),
      // Looked at, not trusted: nothing is sent.
      rejectUnauthorized: false,
      ...(isIP(host) === 0 ? { servername: host } : {}),
    });
    signal.addEventListener('abort', () => socket.destroy());
    socket.on('error', (error) => {
      const why = errorCode(error) ?? error.message;
      const todo = /^(?:E[A-Z]+|EAI_AGAIN)$/.test(why)
        ? networkTodo(why)
        : 'see whether influx.url has the right port';
      resolve(fail(`no TLS with ${url.host}: ${why}`, todo));
    });
    socket.on('secureConnect', () => {
      const certificate: PeerCertificate = socket.getPeerCertificate();
      const why: unknown = socket.authorizationError;
      socket.destroy();
      const days = Math.floor((Date.parse(certificate.valid_to) - wallMs) / dayMs);
      // Typed as an Error, but what comes is the code of it.
      const code = why instanceof Error ? (errorCode(why) ?? why.message) : String(why);
      if (!socket.authorized) {
        const otherwise =
          'let the server send its whole chain; for an authority of your own set NODE_EXTRA_CA_CERTS';
        resolve(fail(`the certificate of ${url.host} is not good: ${code}`, chainTodos[code] ?? otherwise));
      } else if (days < warnDays) {
        resolve(warn(`the certificate of ${url.host} ends in ${days} days`, 'renew it on the server'));
      } else resolve(ok(`the certificate of ${url.host} is good for ${days} days`));
    });
  });
}
