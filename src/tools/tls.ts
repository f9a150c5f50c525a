// `iotflow tls`: which certificate is shown to clients, until when, and the fingerprints to compare it with.

import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import { type ShownCertificate, showCertificate } from '../platform/certificates.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { readOwnCertificate } from '../platform/own-certificate.ts';
import { answer, type Command, configOption, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation } from './operator.ts';

interface Answer extends ShownCertificate {
  readonly fault?: string | null;
}

async function readFiles({ dataDir, tls: { certPath, keyPath } }: Config): Promise<Answer> {
  if (certPath !== undefined && keyPath !== undefined) {
    const read = await readOwnCertificate({ certPath, keyPath });
    if ('fault' in read) throw new GatewayError('TLS_CERTIFICATE_INVALID', read.fault);
    return showCertificate(new X509Certificate(read.certificates));
  }
  const path = join(dataDir, 'tls', 'ca.crt');
  try {
    const leaf = new X509Certificate(await readFile(join(dataDir, 'tls', 'server.crt')));
    return showCertificate(leaf, { path, x509: new X509Certificate(await readFile(path)) });
  } catch (error) {
    const why = errorCode(error) === 'ENOENT' ? 'it is made at the first start' : String(error);
    throw new GatewayError('TLS_CERTIFICATE_INVALID', `there is no certificate yet: ${why}`, {
      cause: error,
    });
  }
}

function textOf({ names, ends_at, fingerprint_sha256, authority, fault }: Answer): string {
  const rows = [
    ['certificate', authority === null ? 'your own' : "of the gateway's own authority"],
    ['for', names.join(', ')],
    ['until', ends_at],
    ['fingerprint', fingerprint_sha256],
    ...(authority === null
      ? []
      : [
          ['authority', authority.path],
          ['until', authority.ends_at],
          ['fingerprint', authority.fingerprint_sha256],
        ]),
    ...(fault ? [['not used', fault]] : []),
  ];
  return rows.map(([name = '', value = '']) => `${name.padEnd(11)}  ${value}`).join('\n');
}

export const tlsCommand: Command = {
  name: 'tls',
  summary: 'Show the TLS certificate and its fingerprints',
  options: { config: configOption, json: jsonOption },
  details:
    'Devices and browsers that trust the authority trust the gateway, also after its certificate is renewed.\n' +
    'Everybody may fetch it (/ca.crt over HTTP); compare its fingerprint (SHA-256) with this one.',
  run: async (call) => {
    const { config } = requireConfig(call);
    const shown = await callOperation(config, 'tls.show', {}).catch((error: unknown) => {
      if (errorCode(error) === 'GATEWAY_NOT_RUNNING') return readFiles(config);
      throw error;
    });
    answer(call, shown, textOf(shown as Answer));
    return 0;
  },
};
