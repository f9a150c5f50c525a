import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { dump } from 'js-yaml';
import { describe, expect, test } from 'vitest';
import { type Environment, variableOf } from '../../src/config/environment.ts';
import { formatFault } from '../../src/config/fault.ts';
import { gatewayIdFrom, machineMark } from '../../src/config/gateway-id.ts';
import { loadConfig } from '../../src/config/load.ts';
import { settings } from '../../src/config/schema.ts';
import { tempFolder } from '../support/temp.ts';

function configOf(text: string, env: Environment = {}) {
  const loaded = loadConfig({ text, env });
  if ('faults' in loaded) throw new Error(loaded.faults.map((fault) => formatFault(fault)).join('\n'));
  return loaded.config;
}

function faultsOf(text: string, env: Environment = {}): string[] {
  const loaded = loadConfig({ text, env });
  return 'faults' in loaded ? loaded.faults.map((fault) => formatFault(fault)) : [];
}

describe('a good configuration', () => {
  test('is complete without a file', () => {
    const config = configOf('');
    expect(config.mqtt.port).toBe(1883);
    expect(config.mqtt.tls.port).toBe(8883);
    expect(config.mqtt.lanPlaintext).toBe(false);
    expect(config.journal.maxBytes).toBe(2 * 1024 ** 3);
    expect(config.influx.url).toBeUndefined();
    expect(config.gatewayId).toBe(gatewayIdFrom(hostname(), machineMark()));
    expect(config.dataDir).toBe(resolve('data'));
  });

  test('may be a file of comments, or sections with nothing below them', () => {
    expect(configOf('# nothing yet\n')).toEqual(configOf(''));
    expect(configOf('mqtt:\ninflux:\n  url:\n')).toEqual(configOf(''));
  });

  test('takes a list of serial ports as well as auto', () => {
    expect(configOf('serial: {ports: auto}').serial.ports).toBe('auto');
    expect(configOf('serial: {ports: [/dev/ttyUSB0]}').serial.ports).toEqual(['/dev/ttyUSB0']);
  });

  test('has paths relative to the folder of its file, defaults too', () => {
    const folder = tempFolder();
    const file = join(folder, 'config.yaml');
    writeFileSync(file, 'buzzer: {led: leds/buzzer}\n');
    const loaded = loadConfig({ file, env: {} });
    expect(loaded).toMatchObject({
      config: { dataDir: join(folder, 'data'), buzzer: { led: join(folder, 'leds/buzzer') } },
    });
    expect(loadConfig({ file, env: { IOTFLOW_DATA_DIR: 'here' } })).toMatchObject({
      config: { dataDir: resolve('here') },
    });
  });

  test.each([
    ['Raspberrypi.local', 'raspberrypi'],
    ['Küche Pi', 'k-che-pi'],
    ['--', 'gateway'],
    ['_x', 'x'],
    [`${'a'.repeat(80)}`, 'a'.repeat(64)],
  ])('calls the gateway of host %j %j', (host, id) => {
    expect(gatewayIdFrom(host, undefined)).toBe(id);
  });

  test('tells gateways of the same host name apart by their boards, then by their installations', () => {
    const folder = tempFolder();
    const file = (name: string, content: string): string => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const board = file('serial-number', '10000000a1b2c3d4\0');
    const other = file('other-serial-number', '10000000a1b2c3d5\0');
    const machine = file('machine-id', '3d1219c7c4c5404aaa1f6d2a48adfda4\n');
    const id = (...paths: string[]): string => gatewayIdFrom('raspberrypi', machineMark(paths));
    expect(id(board, machine)).toMatch(/^raspberrypi-[0-9a-f]{6}$/);
    expect(id(board, machine)).toBe(id(board));
    expect(id(board)).not.toBe(id(other));
    expect(id(join(folder, 'none'), machine)).toBe(id(machine));
    expect(id(machine)).not.toBe(id(board));
    expect(id(machine)).not.toContain('3d1219');
    expect(id(file('none-yet', 'uninitialized\n'), file('emulated', '0000000000000000\0'))).toBe(
      'raspberrypi',
    );
    expect(gatewayIdFrom('a'.repeat(80), machineMark([board]))).toHaveLength(64);
  });
});

describe('faults', () => {
  test('name two places to forward to', () => {
    expect(faultsOf('influx: {url: http://a}\nbridge: {url: mqtt://b}')).toEqual([
      'bridge.url: expected one of influx.url and bridge.url, got both: points are forwarded to one place',
    ]);
    expect(faultsOf('bridge: {url: "mqtt://a, http://b"}')).toHaveLength(1);
    expect(configOf('bridge: {url: "mqtt://a, mqtts://b:8884"}').bridge.url).toBe('mqtt://a, mqtts://b:8884');
  });

  test('name the path, what was expected and what was given', () => {
    expect(faultsOf('mqtt: {port: abc}')).toEqual([
      'mqtt.port: expected a whole number from 0 to 65535, got "abc"',
    ]);
    expect(faultsOf('mqtt: {tls: {port: 70000}}')).toEqual([
      'mqtt.tls.port: expected a whole number from 0 to 65535, got 70000',
    ]);
    expect(faultsOf('mqtt: {tls: {port: 1.5}}')).toEqual([
      'mqtt.tls.port: expected a whole number from 0 to 65535, got 1.5',
    ]);
    expect(faultsOf('mqtt: {lan_plaintext: "yes"}')).toEqual([
      'mqtt.lan_plaintext: expected true or false, got "yes"',
    ]);
    expect(faultsOf('log: {level: loud}')).toEqual([
      'log.level: expected one of trace, debug, info, warn, error, silent, got "loud"',
    ]);
    expect(faultsOf('version: 2')).toEqual(['version: expected 1, the only version there is, got 2']);
    expect(faultsOf('influx: {bucket: [a]}')).toEqual([
      'influx.bucket: expected text of 1 to 256 characters, no control characters, got a list',
    ]);
    expect(faultsOf('mqtt: 1883')).toEqual(['mqtt: expected keys below it, got a single value']);
    expect(faultsOf('serial: {ports: [ttyUSB0]}')).toHaveLength(1);
    expect(faultsOf('serial: {ports: 7}')).toEqual([
      'serial.ports: expected auto, or a list of paths that start with /, got 7',
    ]);
    expect(faultsOf('- a')).toEqual(['configuration: expected keys below it, got a list']);
    expect(faultsOf('just text')).toEqual(['configuration: expected keys below it, got a single value']);
  });

  test('of unknown keys name the nearest right one', () => {
    expect(faultsOf('mqtt: {prot: 1}')).toEqual(['mqtt.prot: unknown key; did you mean "port"?']);
    expect(faultsOf('mqtt: {lanPlaintext: true}')).toEqual([
      'mqtt.lanPlaintext: unknown key; did you mean "lan_plaintext"?',
    ]);
    expect(faultsOf('influxdb: {url: x}')).toEqual(['influxdb: unknown key; did you mean "influx"?']);
    expect(faultsOf('batch_points: 3')).toEqual([
      'batch_points: unknown key; did you mean "influx.batch_points"?',
    ]);
    expect(faultsOf('log: {colour_scheme: dark}')).toEqual([
      'log.colour_scheme: unknown key; known here are level',
    ]);
  });

  test('of names every object has are faults like any other', () => {
    for (const key of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      expect(faultsOf(`mqtt: {${key}: {port: 1}}`), key).toHaveLength(1);
    }
  });

  test('are all listed, not only the first', () => {
    const found = faultsOf(
      'mqtt: {port: -1, prot: 1}\ninflux: {batch_points: 0}\nlog: 3\nflume: {base_url: x}',
    );
    expect(found.map((line) => line.split(':')[0]).sort()).toEqual([
      'flume.base_url',
      'influx.batch_points',
      'log',
      'mqtt.port',
      'mqtt.prot',
    ]);
  });

  test('of the YAML itself name line and column and quote nothing of the file', () => {
    const loaded = loadConfig({ text: 'influx:\n  token: geheim\n token: again\n', env: {} });
    if (!('faults' in loaded)) throw new Error('expected faults');
    expect(loaded.faults).toHaveLength(1);
    expect(formatFault(loaded.faults[0]!, 'config.yaml')).toMatch(/^config\.yaml:3:\d+: not YAML: /);
    expect(JSON.stringify(loaded)).not.toContain('geheim');
    expect(faultsOf('mqtt: {port: 1}\nmqtt: {port: 2}')[0]).toMatch(/:2:1: not YAML: duplicated mapping key/);
  });

  test('of a file that cannot be read say why', () => {
    const folder = tempFolder();
    expect(loadConfig({ file: join(folder, 'none.yaml'), env: {} })).toEqual({
      faults: [{ path: '', message: 'cannot be read: no such file' }],
    });
    expect(loadConfig({ file: folder, env: {} })).toEqual({
      faults: [{ path: '', message: 'cannot be read: it is a directory' }],
    });
    const large = join(folder, 'large.yaml');
    writeFileSync(large, `# ${'x'.repeat(1024 * 1024)}`);
    expect(loadConfig({ file: large, env: {} })).toHaveProperty('faults');
  });

  test('never show a secret, wherever it slipped to', () => {
    const slips = [
      'influx: {token: "geheim\\n"}',
      'influx: {token: [geheim]}',
      'influx: geheim',
      'influx: {tokn: geheim}',
      'influx: {url: "http://user:geheim@host:8086"}',
      'flume: {password: {value: geheim}}',
      'voicemonkey: geheim',
    ];
    for (const text of slips) {
      const found = faultsOf(text);
      expect(found, text).not.toEqual([]);
      expect(found.join('\n'), text).not.toContain('geheim');
    }
    expect(faultsOf('', { FLUME_PASSWORD: 'geheim\t' }).join()).toMatch(
      /^FLUME_PASSWORD \(flume\.password\): /,
    );
    expect(faultsOf('', { FLUME_PASSWORD: 'geheim\t' }).join()).not.toContain('geheim');
  });

  test('are what any YAML at all leads to, or a configuration; never an exception', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), (text) => {
        loadConfig({ text, env: {} });
      }),
      { numRuns: 500 },
    );
    const key = fc.oneof(
      fc.constantFrom(...settings.flatMap(({ path }) => path)),
      fc.string({ maxLength: 10 }),
    );
    const tree = fc.letrec((tie) => ({
      node: fc.oneof(
        { maxDepth: 4 },
        fc.oneof(fc.string(), fc.double(), fc.boolean(), fc.constant(null)),
        fc.dictionary(key, tie('node'), { maxKeys: 6 }),
        fc.array(tie('node'), { maxLength: 3 }),
      ),
    })).node;
    let faulty = 0;
    fc.assert(
      fc.property(tree, (value) => {
        if ('faults' in loadConfig({ text: dump(value), env: {} })) faulty += 1;
      }),
      { numRuns: 500 },
    );
    expect(faulty).toBeGreaterThan(50);
  });
});

describe('the environment', () => {
  test('can set every setting, whatever its type', () => {
    const config = configOf('', {
      IOTFLOW_MQTT_TLS_PORT: '0',
      IOTFLOW_MQTT_LAN_PLAINTEXT: 'true',
      IOTFLOW_INFLUX_TOKEN: 'abc',
      IOTFLOW_SERIAL_PORTS: '/dev/ttyUSB0, /dev/ttyUSB1',
      IOTFLOW_GATEWAY_ID: 'attic',
    });
    expect(config.mqtt.tls.port).toBe(0);
    expect(config.mqtt.lanPlaintext).toBe(true);
    expect(config.influx.token).toBe('abc');
    expect(config.serial.ports).toEqual(['/dev/ttyUSB0', '/dev/ttyUSB1']);
    expect(config.gatewayId).toBe('attic');
    expect(new Set(settings.map(variableOf)).size).toBe(settings.length);
  });

  test('of earlier installations works unchanged', () => {
    const config = configOf('', {
      INFLUXDB_URL: 'http://localhost:8086',
      INFLUXDB_TOKEN: 't',
      INFLUXDB_ORG: 'o',
      INFLUXDB_BUCKET: 'b',
      INFLUXDB_BATCH_SIZE: '500',
      INFLUXDB_FLUSH_INTERVAL: '10000',
      INFLUXDB_TIMEOUT: '3000',
      FLUME_CLIENT_ID: 'id',
      FLUME_CLIENT_SECRET: 's',
      FLUME_USERNAME: 'u',
      FLUME_PASSWORD: 'p',
      VOICE_MONKEY_TOKEN: 'm',
      VOICE_MONKEY_DEVICE: 'd',
    });
    expect(config.influx).toEqual({
      url: 'http://localhost:8086',
      token: 't',
      org: 'o',
      bucket: 'b',
      batchPoints: 500,
      flushIntervalMs: 10_000,
      timeoutMs: 3_000,
      drainJitterMs: 30_000,
    });
    expect(config.flume).toMatchObject({ clientId: 'id', clientSecret: 's', username: 'u', password: 'p' });
    expect(config.voicemonkey).toMatchObject({ token: 'm', device: 'd' });
  });

  test('goes before the file, and our names before those of earlier installations', () => {
    const text = 'influx: {bucket: file}';
    expect(configOf(text, { INFLUXDB_BUCKET: 'earlier' }).influx.bucket).toBe('earlier');
    expect(configOf(text, { INFLUXDB_BUCKET: 'earlier', IOTFLOW_INFLUX_BUCKET: 'ours' }).influx.bucket).toBe(
      'ours',
    );
    expect(configOf(text, { IOTFLOW_INFLUX_BUCKET: '' }).influx.bucket).toBe('file');
  });

  test('is named in its faults', () => {
    expect(faultsOf('', { IOTFLOW_MQTT_PORT: 'abc', INFLUXDB_BATCH_SIZE: '1e9' })).toEqual([
      'IOTFLOW_MQTT_PORT (mqtt.port): expected a whole number from 0 to 65535, got "abc"',
      'INFLUXDB_BATCH_SIZE (influx.batch_points): expected a whole number from 1 to 100000, got "1e9"',
    ]);
  });

  test('with a misspelt variable gives a warning that names the nearest', () => {
    expect(
      loadConfig({ env: { IOTFLOW_MQTT_PROT: '1', IOTFLOW_CONFIG: 'x', IOTFLOW_VERSION: '0.1' } }),
    ).toMatchObject({
      warnings: [expect.stringContaining('nearest variable that does is IOTFLOW_MQTT_PORT')],
    });
  });
});

describe('secrets', () => {
  test('can come from files, without the line break at their end', () => {
    const folder = tempFolder();
    mkdirSync(join(folder, 'credentials'));
    writeFileSync(join(folder, 'credentials', 'token'), 'abc=\n');
    const file = join(folder, 'config.yaml');
    writeFileSync(file, 'influx: {url: "http://h", token_file: credentials/token}\n');
    const loaded = loadConfig({ file, env: {} });
    expect(loaded).toMatchObject({ config: { influx: { token: 'abc=' } }, warnings: [] });
    expect(loaded).not.toHaveProperty('config.influx.tokenFile');
    expect(
      configOf('influx: {token: old}', { IOTFLOW_INFLUX_TOKEN_FILE: join(folder, 'credentials', 'token') })
        .influx.token,
    ).toBe('abc=');
    expect(configOf(`influx: {token_file: ${folder}/none}`, { INFLUXDB_TOKEN: 'wins' }).influx.token).toBe(
      'wins',
    );
  });

  test('whose file cannot be read, is empty or holds more than a secret are faults', () => {
    const folder = tempFolder();
    writeFileSync(join(folder, 'empty'), '\n');
    writeFileSync(join(folder, 'lines'), 'geheim\ngeheim\n');
    expect(faultsOf(`flume: {password_file: ${folder}/none}`)).toEqual([
      `flume.password_file: cannot read "${folder}/none": no such file`,
    ]);
    expect(faultsOf(`flume: {password_file: ${folder}/empty}`)).toHaveLength(1);
    const [fault] = faultsOf(`flume: {password_file: ${folder}/lines}`);
    expect(fault).toContain('flume.password');
    expect(fault).not.toContain('geheim');
    expect(faultsOf('', { IOTFLOW_FLUME_PASSWORD_FILE: `${folder}/none` })[0]).toMatch(
      /^IOTFLOW_FLUME_PASSWORD_FILE \(flume\.password_file\): cannot read/,
    );
  });

  test('given twice in one place are a fault', () => {
    expect(faultsOf('influx: {url: "http://h", token: a, token_file: /b}')).toEqual([
      'influx.token_file: expected one of influx.token and influx.token_file, got both',
    ]);
  });

  test('in a file that every user may read give a warning', () => {
    const file = join(tempFolder(), 'config.yaml');
    writeFileSync(file, 'influx: {url: "http://h", token: abc}\n');
    chmodSync(file, 0o644);
    expect(loadConfig({ file, env: {} })).toMatchObject({
      warnings: [expect.stringContaining('influx.token and every user may read it')],
    });
    chmodSync(file, 0o640);
    expect(loadConfig({ file, env: {} })).toMatchObject({ warnings: [] });
  });
});
