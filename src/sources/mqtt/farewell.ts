// How a client is told that, and why, it is refused or its connection ends. MQTT 3.1.1 has a return code in CONNACK
// and nothing else; MQTT 5 has reason codes [2.4] and a sentence for a person to read, which is left out where the
// packet would then be larger than the client takes [MQTT-3.2.2-19, 3.4.2-2, 3.5.2-2, 3.14.2-3].

import type { ConnackPacket } from './broker-internals.ts';
import type { Connection } from './connection.ts';
import { type Offence, offenceReasonCodes } from './packet-guard.ts';

/** Reason codes of a DISCONNECT, with the sentence that goes with each. */
export const farewells = {
  administrativeAction: [0x98, 'the account was revoked, deactivated or given another key'],
  implementationSpecificError: [0x83, 'the gateway cannot store messages at the moment'],
  keepAliveTimeout: [0x8d, 'nothing came for one and a half keep-alive times'],
  quotaExceeded: [0x97, 'the storage of the gateway is full'],
  receiveMaximumExceeded: [0x93, 'more unacknowledged messages than the Receive Maximum in CONNACK'],
} as const satisfies Record<string, Farewell>;

type Farewell = readonly [reasonCode: number, reason: string];

const offences: Readonly<Record<Offence, string>> = {
  malformed: 'a packet is malformed',
  'protocol-error': 'a packet says what the protocol does not allow',
  'protocol-version': 'MQTT 3.1.1 and 5.0 are spoken here',
  'client-id': 'the client id is too long',
  'topic-invalid': 'a topic or filter is ill-formed, or has too many bytes or levels',
  'packet-too-large': 'a packet is larger than the Maximum Packet Size in CONNACK',
};

export type Refused = Error & { returnCode: number };

/** Answers a CONNECT; the return code is that of 3.1.1, aedes translates it for MQTT 5. */
export function refusal(returnCode: number, message: string): Refused {
  return Object.assign(new Error(message), { returnCode });
}

/** Adds why to a CONNACK that refuses. */
export function explain({ reasonCode, properties }: ConnackPacket, { refused, capacity }: Connection) {
  if (reasonCode === 0 || refused === undefined) return properties;
  return fits(refused.message, 5, capacity.maximumPacketSize)
    ? { ...properties, reasonString: refused.message }
    : properties;
}

/** Whether an acknowledgement with this reason is small enough for the client. */
export function mayExplain({ capacity }: Connection, reason: string): boolean {
  return fits(reason, 8, capacity.maximumPacketSize);
}

/** Ends a connection in order: what was written before goes out first. */
export function dismiss({ client, capacity }: Connection, [reasonCode, reason]: Farewell): void {
  const isTold = fits(reason, 4, capacity.maximumPacketSize);
  client.disconnect({ reasonCode, ...(isTold ? { properties: { reasonString: reason } } : {}) });
}

/** The same as bytes, for when aedes has no part in it. */
export function disconnectBytes([reasonCode, reason]: Farewell, { capacity }: Connection): Buffer {
  if (!fits(reason, 4, capacity.maximumPacketSize)) return Buffer.from([0xe0, 2, reasonCode, 0]);
  const text = Buffer.from(reason);
  return Buffer.concat([
    Buffer.from([0xe0, text.length + 5, reasonCode, text.length + 3, 0x1f, 0, text.length]),
    text,
  ]);
}

/** CONNACK or DISCONNECT to a client that sent what is not allowed; nothing where there is no such answer. */
export function farewellTo(connection: Connection, offence: Offence): Buffer {
  const { client, guard } = connection;
  const reasonCode = offenceReasonCodes[offence];
  // [MQTT-3.1.2-2]
  if (offence === 'protocol-version') return Buffer.from([0x20, 2, 0, 1]);
  if (guard.version === 5 && client.connected)
    return disconnectBytes([reasonCode, offences[offence]], connection);
  if (guard.version !== 0) return Buffer.alloc(0);
  // [MQTT-3.1.4-1 of version 5]; 3.1.1 knows a word for the client id alone [MQTT-3.1.3-9].
  if (guard.announcedVersion === 5) return Buffer.from([0x20, 3, 0, reasonCode, 0]);
  return offence === 'client-id' ? Buffer.from([0x20, 2, 0, 2]) : Buffer.alloc(0);
}

/** A reason is at most 120 bytes, so its lengths are one byte each but for acknowledgements of a long topic. */
function fits(reason: string, otherBytes: number, maximumPacketSize: number): boolean {
  return Buffer.byteLength(reason) + 3 + otherBytes <= maximumPacketSize;
}
