// Every decoder of bytes that somebody else wrote (a device, a server, a damaged disk) survives whatever it is
// given: it answers a value or undefined, or refuses in the one way it promises. fast-check finds the odd cases,
// a seeded mutator the many. The long form is IOTFLOW_FUZZ_RUNS=1000000. The packet guard and the message decoder
// have their own files.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseFacts } from '../../src/alarms/state.ts';
import { readAnswer } from '../../src/forwarder/answer.ts';
import { SequenceWindow } from '../../src/ingest/sequence-window.ts';
import { headerBytes, padded, readFrame, readStateWrites, sealFrame } from '../../src/journal/frame.ts';
import { LineProtocolError, parseLine, splitLines } from '../../src/model/line-protocol.ts';
import { parseTimestamp } from '../../src/model/timestamp.ts';
import { decodeDevice } from '../../src/registry/device.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { decodeStoredMessage, encodeStoredMessage } from '../../src/sources/mqtt/stored-message.ts';

const runs = Number(process.env.IOTFLOW_FUZZ_RUNS ?? 20_000);

function sealedFrame(): Buffer {
  const lines = 'leak,device_id=a wet=true 1700000000000000000\n';
  const length = headerBytes + lines.length;
  const frame = Buffer.alloc(padded(length));
  frame.write(lines, headerBytes);
  sealFrame(frame, 0, {
    length,
    segment: 3,
    life: 2 ** 47 + 5,
    sequence: 9,
    place: 0,
    isAfterOpening: true,
    previous: 8,
    watermarks: [1, 1, 1],
    floor: 2,
    pointsBefore: 77,
    atMs: 123_456,
    points: [0, 0, 1],
    bytes: [0, 0, lines.length],
    undated: [false, false, true],
    stateWrites: 0,
    stateBytes: 0,
  });
  return frame;
}

interface Decoder {
  readonly name: string;
  /** Well-formed input to start from. */
  readonly samples: readonly Buffer[];
  decode(bytes: Buffer): unknown;
}

const decoders: readonly Decoder[] = [
  {
    name: 'line protocol',
    samples: [
      Buffer.from(
        'leak,device_id=esp32_001,location=Under\\ the\\ sink wet=true,note="a \\"b\\"" 1700000000000000000',
      ),
      Buffer.from('water flow=1.5e-3,total=7i,open=F'),
    ],
    decode: (bytes) => {
      const text = bytes.toString();
      splitLines(text);
      try {
        return parseLine(text);
      } catch (error) {
        if (error instanceof LineProtocolError) return undefined;
        throw error;
      }
    },
  },
  {
    name: 'timestamps',
    samples: [Buffer.from('2024-01-01T12:00:00.123456789+02:00'), Buffer.from('1704110400123')],
    decode: (bytes) => parseTimestamp(bytes.toString()),
  },
  {
    name: 'a message stored for a session',
    samples: [
      encodeStoredMessage({
        topic: 'iotflow/devices/a/commands/open',
        payload: Buffer.from('{"id": 1}'),
        qos: 2,
        retain: true,
        properties: { userProperties: { a: ['b', 'c'] }, correlationData: Buffer.from([1, 2]) },
        messageExpiry: 1_700_000_000_000,
      }),
    ],
    decode: (bytes) => decodeStoredMessage(bytes),
  },
  {
    name: 'a frame of the journal',
    samples: [sealedFrame()],
    decode: (bytes) => {
      const header = readFrame(bytes, 0);
      // What the checksum does not cover must be refused by itself.
      readStateWrites(bytes.subarray(Math.min(headerBytes, bytes.length)));
      return header;
    },
  },
  {
    name: 'a window of sequence numbers',
    samples: [Buffer.from('4711 17 3 200 1 40'), Buffer.from('-1')],
    decode: (bytes) => SequenceWindow.decode(bytes),
  },
  {
    name: 'the facts of an alarm',
    samples: [
      Buffer.from(
        JSON.stringify({
          id: 'wet/a',
          rule: 'wet',
          deviceId: 'a',
          priority: 'critical',
          latching: true,
          message: 'Water at a',
          active: true,
          acknowledged: false,
          raisedMs: 1_700_000_000_000,
          raisedCount: 1,
        }),
      ),
    ],
    decode: (bytes) => parseFacts(bytes),
  },
  {
    name: 'a device of the registry',
    samples: [
      Buffer.from(
        '{"version":1,"deviceId":"a","name":"A","type":"","location":"","status":"active","service":false,' +
          '"createdMs":1,"updatedMs":1,"keys":[{"keyId":"0123456789","sha256":"' +
          `${'ab'.repeat(32)}","createdMs":1}]}`,
      ),
    ],
    decode: (bytes) => decodeDevice('a', bytes),
  },
  {
    name: "InfluxDB's answers",
    samples: [
      Buffer.from(
        '{"code":"invalid","message":"partial write: field type conflict: input field \\"f\\" on measurement \\"m\\" is type string, already exists as type float dropped=1"}',
      ),
      Buffer.from(
        '{"error":"partial write of line protocol occurred","data":[{"original_line":"m v=1","line_number":3,"error_message":"no"}]}',
      ),
      Buffer.from("unable to parse 'm v=': missing field value"),
    ],
    decode: (bytes) => {
      const body = bytes.toString();
      return [400, 422, 429, 500].map((status) =>
        readAnswer({ status, contentType: 'application/json', body, retryAfter: body.slice(0, 20) }, 0),
      );
    },
  },
];

function mutate(bytes: Buffer, random: () => number): Buffer {
  const mutated = Buffer.from(bytes);
  const at = Math.floor(random() * (mutated.length + 1));
  switch (Math.floor(random() * 6)) {
    case 0:
      return mutated.subarray(0, at);
    case 1:
      if (at < mutated.length) mutated[at] = Math.floor(random() * 256);
      return mutated;
    case 2:
      if (at < mutated.length) mutated[at] = (mutated[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      return mutated;
    case 3:
      return Buffer.concat([
        mutated.subarray(0, at),
        Buffer.from([Math.floor(random() * 256)]),
        mutated.subarray(at),
      ]);
    case 4:
      return Buffer.concat([mutated.subarray(0, at), mutated.subarray(Math.min(mutated.length, at + 3))]);
    default:
      return Buffer.concat([mutated.subarray(at), mutated.subarray(0, at)]);
  }
}

describe.each(decoders)('$name', ({ samples, decode }) => {
  test('is read when it is well formed', () => {
    for (const sample of samples) expect(decode(sample)).toBeDefined();
  });

  test('whatever the bytes, reading them never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        decode(Buffer.from(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  test(`${runs} mutations of good input are survived`, () => {
    const random = seededRandom(20_261_121);
    let current = samples[0] ?? Buffer.alloc(0);
    for (let run = 0; run < runs; run += 1) {
      // Up to eight steps away from something good.
      if (run % 8 === 0) current = samples[Math.floor(random() * samples.length)] ?? current;
      current = mutate(current, random).subarray(0, 8192);
      decode(current);
    }
    expect(decode(samples[0] ?? Buffer.alloc(0))).toBeDefined();
  });
});

test('a flipped bit anywhere in a frame is noticed', () => {
  const good = sealedFrame();
  const { length } = readFrame(good, 0) ?? { length: 0 };
  for (let bit = 0; bit < length * 8; bit += 1) {
    const bad = Buffer.from(good);
    bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(readFrame(bad, 0)).toBeUndefined();
  }
});
