import { expect, test } from 'vitest';
import { decode, decodeLimits } from '../../src/ingest/decode.ts';
import type { Channel } from '../../src/model/message.ts';

function decoded(payload: string | Buffer, channel: Channel = 'telemetry', name = 'climate') {
  return decode({ channel, name, payload: Buffer.from(payload) });
}

function sampleOf(payload: string | Buffer, channel: Channel = 'telemetry', name = 'climate') {
  const { samples } = decoded(payload, channel, name);
  expect(samples).toHaveLength(1);
  return samples[0]!;
}

test('a JSON object becomes the fields of the measurement its topic names', () => {
  const sample = sampleOf('{"t":21.5,"ok":true,"mode":"eco","none":null}');
  expect(sample.measurement).toBe('climate');
  expect([...sample.fields]).toEqual([
    ['t', 21.5],
    ['ok', true],
    ['mode', 'eco'],
  ]);
  expect(sample.fault).toBeUndefined();
});

test('timestamp, boot and seq are taken out of the fields', () => {
  const sample = sampleOf('{"t":1,"timestamp":1763700000,"boot":"ab-1","seq":7}');
  expect([...sample.fields.keys()]).toEqual(['t']);
  expect(sample).toMatchObject({ timeNs: 1_763_700_000_000_000_000n, boot: 'ab-1', seq: 7 });
});

test.each([
  ['42', 42],
  [' -1.5e2 ', -150],
  ['true', true],
  ['false', false],
])('a bare %s is the field "value"', (payload, value) => {
  expect([...sampleOf(payload).fields]).toEqual([['value', value]]);
});

test('line protocol keeps its own measurements; its tags are dropped and counted', () => {
  const { samples, tagsDropped } = decoded('a,x=1,device_id=me v=1i 1763700000\nb v="q"\r\n# note\n');
  expect(tagsDropped).toBe(1);
  expect(samples.map(({ measurement, timeNs }) => [measurement, timeNs])).toEqual([
    ['a', 1_763_700_000_000_000_000n],
    ['b', undefined],
  ]);
});

test('a bad line is refused alone', () => {
  const { samples } = decoded('a v=1\nnonsense\nb v=2');
  expect(samples.map(({ fault }) => fault?.code)).toEqual([undefined, 'NOT_LINE_PROTOCOL', undefined]);
  expect(samples[1]!.line).toBe('nonsense');
});

test('two lines that only their own tags tell apart do not overwrite each other', () => {
  const { samples } = decoded('t,room=a v=1 1763700000\nt,room=b v=2 1763700000');
  expect(samples.map(({ fault }) => fault?.code)).toEqual([undefined, 'TAGS_NOT_ALLOWED']);
});

test('a status word is a text field named by its kind', () => {
  const sample = sampleOf('offline', 'status', 'online');
  expect(sample.measurement).toBe('status');
  expect([...sample.fields]).toEqual([['online', 'offline']]);
  expect([...sampleOf('"offline"', 'status', 'online').fields]).toEqual([['online', 'offline']]);
});

test.each([
  ['status', 'status'],
  ['alarms', 'alarm_report'],
  ['command-ack', 'command_ack'],
] as const)('a JSON report on %s keeps its kind as a field', (channel, measurement) => {
  const sample = sampleOf('{"rssi":-60}', channel, 'heartbeat');
  expect(sample.measurement).toBe(measurement);
  expect(sample.fields.get('kind')).toBe('heartbeat');
});

test('an empty payload is nothing, as MQTT clears a retained message', () => {
  expect(decoded('').samples).toEqual([]);
  expect(decoded(' \n').samples).toEqual([]);
});

test('a metadata object is not an error and not stored', () => {
  const sample = sampleOf('{"t":1,"metadata":{"room":"bath","deep":{"a":[1]}}}');
  expect(sample.fault).toBeUndefined();
  expect([...sample.fields.keys()]).toEqual(['t']);
});

test('the good fields of a faulty message can still be seen', () => {
  const sample = sampleOf('{"wet":true,"extra":[1]}');
  expect(sample.fault).toMatchObject({ code: 'FIELD_NOT_SCALAR', field: 'extra' });
  expect(sample.fields.get('wet')).toBe(true);
});

test('names that mean something to JavaScript are only names', () => {
  const sample = sampleOf('{"__proto__":1,"constructor":2,"hasOwnProperty":3}');
  expect([...sample.fields]).toEqual([
    ['__proto__', 1],
    ['constructor', 2],
    ['hasOwnProperty', 3],
  ]);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

test('a line break inside text becomes a space, because a point is one line', () => {
  expect(sampleOf('{"s":"a\\r\\nb\\nc"}').fields.get('s')).toBe('a b c');
});

test.each([
  ['{"t":', 'NOT_JSON'],
  ['{"t":NaN}', 'NOT_JSON'],
  ['[1,2]', 'NOT_AN_OBJECT'],
  ['"wet"', 'NOT_AN_OBJECT'],
  ['{}', 'NO_FIELDS'],
  ['null', 'NO_FIELDS'],
  ['{"t":null}', 'NO_FIELDS'],
  ['{"seq":1}', 'NO_FIELDS'],
  ['{"t":{"a":1}}', 'FIELD_NOT_SCALAR'],
  ['{"t":1e999}', 'NUMBER_TOO_LARGE'],
  ['1e999', 'NUMBER_TOO_LARGE'],
  ['{"t":1,"timestamp":"soon"}', 'TIMESTAMP_INVALID'],
  ['{"t":1,"seq":-1}', 'SEQ_INVALID'],
  ['{"t":1,"seq":1.5}', 'SEQ_INVALID'],
  ['{"t":1,"boot":""}', 'BOOT_INVALID'],
  ['{"t":1,"boot":"a/b"}', 'BOOT_INVALID'],
  ['{"time":1}', 'NAME_RESERVED'],
  ['{"":1}', 'NAME_INVALID'],
  ['{"a\\nb":1}', 'NAME_INVALID'],
  [`{"${'n'.repeat(decodeLimits.nameBytesMax + 1)}":1}`, 'NAME_TOO_LONG'],
  [`{"s":"${'é'.repeat(decodeLimits.stringBytesMax / 2 + 1)}"}`, 'STRING_TOO_LONG'],
  [JSON.stringify(Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`f${i}`, i]))), 'TOO_MANY_FIELDS'],
  ['hello world', 'NOT_DECODABLE'],
  ['a v=1\n'.repeat(decodeLimits.linesMax + 1), 'TOO_MANY_LINES'],
  ['['.repeat(100_000), 'NOT_JSON'],
  ['x'.repeat(decodeLimits.payloadBytesMax + 1), 'PAYLOAD_TOO_LARGE'],
])('what cannot be taken is answered with a code: %.40s', (payload, code) => {
  const sample = sampleOf(payload);
  expect(sample.fault?.code).toBe(code);
  expect(sample.fault?.reason).toMatch(/expected|tags/);
});

test('bytes that are not UTF-8 are refused, not repaired', () => {
  expect(sampleOf(Buffer.from([0x7b, 0xff, 0x7d])).fault?.code).toBe('NOT_UTF8');
});
