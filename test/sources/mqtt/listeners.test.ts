import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { tempFolder } from '../../support/temp.ts';

function isAnswered(host: string, port = 0): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

test.each([false, true])(
  'every door opens on the configured address alone (plain on the LAN: %s)',
  async (lanPlaintext) => {
    const listen = { host: '127.0.0.2', lanPlaintext, port: 0, tlsPort: 0, wsPort: 0 };
    const { ports } = (await startGateway({ listen, dataDirectory: tempFolder() })).source;
    for (const port of [ports.mqtt, ports.mqtts, ports.ws]) {
      expect(await isAnswered('127.0.0.2', port)).toBe(true);
      expect(await isAnswered('127.0.0.1', port)).toBe(false);
    }
  },
);
