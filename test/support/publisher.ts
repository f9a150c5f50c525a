// A publisher that never forgets what was acknowledged: the witness in every test about loss.

import { randomBytes } from 'node:crypto';
import { connect, type MqttClient } from 'mqtt';

export interface Witness {
  /** Values of `seq` whose PUBACK was seen. */
  readonly acknowledged: Set<number>;
  readonly sent: () => number;
  /** Waits until everything sent was acknowledged. */
  settled(timeoutMs: number): Promise<void>;
  stop(): Promise<void>;
}

export interface WitnessOptions {
  readonly port: number;
  readonly deviceId: string;
  readonly apiKey: string;
  /** Messages sent and not yet acknowledged. */
  readonly window: number;
  /** First timestamp; each message is one millisecond later, so every point has an identity. */
  readonly startMs: number;
  /** Pause after each message, 0 for as fast as the window lets. */
  readonly pauseMs?: number;
  /** So many fields of 800 characters that do not compress go with each message, to fill a disk. */
  readonly pads?: number;
}

/** Publishes `telemetry/load {seq, n}` at QoS 1 until stopped, through disconnects. */
export function startWitness(options: WitnessOptions): Witness {
  const acknowledged = new Set<number>();
  const topic = `iotflow/devices/${options.deviceId}/telemetry/load`;
  const client: MqttClient = connect(`mqtt://127.0.0.1:${options.port}`, {
    clientId: options.deviceId,
    username: options.deviceId,
    password: options.apiKey,
    clean: false,
    reconnectPeriod: 50,
    connectTimeout: 2000,
  });
  // Refused connections while the gateway is down are the point of the exercise.
  client.on('error', () => undefined);
  const padNames = Array.from({ length: options.pads ?? 0 }, (_, index) => `pad_${index}`);
  let sent = 0;
  let stopped = false;
  const publishNext = () => {
    if (stopped) return;
    sent += 1;
    const n = sent;
    const payload = JSON.stringify({
      ...{ n, value: n / 7, timestamp: options.startMs + n, boot: 1, seq: n },
      ...Object.fromEntries(padNames.map((name) => [name, randomBytes(600).toString('base64')])),
    });
    const publish = (): void => {
      client.publish(topic, payload, { qos: 1 }, (error) => {
        if (error) {
          // What is given to MQTT.js while it sends the past again, and the connection ends just then, it gives back
          // unsent and forgets.
          if (!client.disconnecting) setImmediate(publish);
          return;
        }
        acknowledged.add(n);
        // The client handles acknowledgements without giving timers a turn.
        if (options.pauseMs === undefined) setImmediate(publishNext);
        else setTimeout(publishNext, options.pauseMs);
      });
    };
    publish();
  };
  client.once('connect', () => {
    for (let index = 0; index < options.window; index += 1) publishNext();
  });
  return {
    acknowledged,
    sent: () => sent,
    settled: async (timeoutMs) => {
      stopped = true;
      const deadlineMs = performance.now() + timeoutMs;
      while (acknowledged.size < sent) {
        if (performance.now() > deadlineMs) {
          throw new Error(`${sent - acknowledged.size} of ${sent} messages were never acknowledged`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    stop: async () => {
      stopped = true;
      await client.endAsync(true);
    },
  };
}
