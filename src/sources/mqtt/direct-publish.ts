// The short way of a QoS 1 message from an MQTT 3.1.1 client, which is what nodes send all day: from the guard's
// checked bytes to the intake without the broker's parser, and its PUBACK back with all that the same commit made
// durable. Everything else goes the broker's way.
//
// Promises what the broker's way promises: the same intake, so PUBACK after durability and in order; subscribers are
// served after it; while a delivery waits for a slow reader, so does the publisher.

import { type Broker, type BrokerPacket, keepAwake } from './broker-internals.ts';
import type { Connection } from './connection.ts';
import { type Intake, readOn, wait } from './intake.ts';

export interface DirectPath {
  readonly intake: Pick<Intake, 'accept'>;
  readonly broker: Pick<Broker, 'publish'>;
  /** Whether anybody but the gateway itself wants messages on the topic. */
  readonly isWanted: (topic: string) => boolean;
}

/** Takes the messages at the head of whole, checked packets; answers how many bytes those were. */
export function takePublishes(connection: Connection, packets: Buffer, path: DirectPath): number {
  const { client } = connection;
  if (client.version !== 4 || !client.connected || !client.connackSent || client.closed) return 0;
  let at = 0;
  while (at < packets.length && isQos1Publish(packets[at] as number)) {
    at = takePublish(connection, packets, at, path);
  }
  // aedes does so for each packet it parses.
  if (at > 0) keepAwake(client);
  return at;
}

/** Whatever DUP and RETAIN say. */
function isQos1Publish(firstByte: number): boolean {
  return (firstByte & 0xf6) === 0x32;
}

function takePublish(connection: Connection, bytes: Buffer, start: number, path: DirectPath): number {
  const first = bytes[start] as number;
  let at = start + 1;
  let length = 0;
  let scale = 1;
  for (; (bytes[at] as number) >= 0x80; at += 1) {
    length += ((bytes[at] as number) & 0x7f) * scale;
    scale *= 128;
  }
  length += (bytes[at] as number) * scale;
  at += 1;
  const end = at + length;
  const topicEnd = at + 2 + bytes.readUInt16BE(at);
  const messageId = bytes.readUInt16BE(topicEnd);
  const packet: BrokerPacket = {
    cmd: 'publish',
    topic: bytes.toString('utf8', at + 2, topicEnd),
    payload: bytes.subarray(topicEnd + 2, end),
    qos: 1,
    retain: (first & 1) !== 0,
    dup: (first & 8) !== 0,
    messageId,
  };
  path.intake.accept(connection, packet, (error) => {
    // Version 3.1.1 has no other way to refuse a message [MQTT-3.3.5-2].
    if (error) connection.client.emit('error', error);
    if (error || packet._notAuthorized === true) return;
    connection.acknowledgements.add(messageId);
    deliver(connection, packet, path);
  });
  return end;
}

function deliver(connection: Connection, packet: BrokerPacket, { broker, isWanted }: DirectPath): void {
  if (!packet.retain && !isWanted(packet.topic)) return;
  wait(connection, packet, 1);
  // Not ahead of an earlier message that went the broker's way [MQTT-4.6.0-6].
  connection.outflow.waitForDrain(() => {
    broker.publish(packet, connection.client, () => {
      wait(connection, packet, -1);
      readOn(connection);
    });
  });
}
