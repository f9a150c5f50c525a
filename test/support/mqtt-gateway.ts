// An MQTT source with accounts of the test's choice, on free ports, closed after the test.

import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Message } from '../../src/model/message.ts';
import { Certificates } from '../../src/platform/certificates.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Account, Credentials } from '../../src/sources/mqtt/access.ts';
import { MqttSource, type MqttSourceOptions } from '../../src/sources/mqtt/mqtt-source.ts';
import { MemorySessionLog } from './session-log.ts';

/** Every device id `x` has the key `key-x`; ids that start with `service` are service accounts. */
export class TestCredentials implements Credentials {
  readonly revoked = new Set<string>();
  readonly #listeners: Parameters<Credentials['onRevoked']>[0][] = [];

  verify(deviceId: string, secret: string): Account | undefined {
    if (secret !== `key-${deviceId}` || this.revoked.has(deviceId)) return undefined;
    return { deviceId, service: deviceId.startsWith('service') };
  }

  onRevoked(listener: Parameters<Credentials['onRevoked']>[0]): void {
    this.#listeners.push(listener);
  }

  /** `active`: it got another key. */
  revoke(deviceId: string, status: 'active' | 'inactive' = 'inactive'): void {
    this.revoked.add(deviceId);
    for (const listener of this.#listeners) listener({ deviceId, service: false, status });
  }
}

export interface TestGateway {
  readonly source: MqttSource;
  readonly port: number;
  readonly wsPort: number;
  readonly messages: Message[];
  readonly credentials: TestCredentials;
  readonly sessionLog: MemorySessionLog;
}

/** Of the gateway's own authority. */
export async function openCertificates(dataDirectory: string): Promise<Certificates> {
  const certificates = await Certificates.open({
    folder: join(dataDirectory, 'tls'),
    clock: systemClock(),
    log: createLog('silent'),
  });
  onTestFinished(() => certificates.close());
  return certificates;
}

interface StartOptions extends Partial<MqttSourceOptions> {
  /** Where the certificates are, in its folder `tls`; for a TLS port. */
  readonly dataDirectory?: string;
}

export async function startGateway({ dataDirectory, ...options }: StartOptions = {}): Promise<TestGateway> {
  const messages: Message[] = [];
  const credentials = new TestCredentials();
  const sessionLog = (options.sessionLog as MemorySessionLog | undefined) ?? new MemorySessionLog();
  const source = await MqttSource.open({
    root: 'iotflow',
    ...(dataDirectory !== undefined && { certificates: await openCertificates(dataDirectory) }),
    listen: { host: '127.0.0.1', lanPlaintext: false, port: 0, wsPort: 0 },
    credentials,
    sink: async (message) => {
      messages.push(message);
    },
    sessionLog,
    clock: systemClock(),
    log: createLog('silent'),
    ...options,
  });
  onTestFinished(() => source.close());
  return {
    source,
    port: source.ports.mqtt ?? 0,
    wsPort: source.ports.ws ?? 0,
    messages,
    credentials,
    sessionLog,
  };
}
