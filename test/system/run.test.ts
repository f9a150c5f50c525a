import { execFile } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { describe, expect, test } from 'vitest';
import { addDevice, iotflow, mainJs, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

describe('iotflow run', () => {
  test('starts on free ports, says where in ports.json, answers /health, and SIGTERM ends it with exit code 0', async () => {
    const folder = tempFolder();
    const configFile = writeConfig(folder, {});
    const gateway = await startGateway(configFile);
    for (const port of Object.values(gateway.ports)) expect(port).toBeGreaterThan(0);
    // The first line of the log names them as well.
    await expect.poll(() => gateway.output()).toContain('\n');
    expect(JSON.parse(gateway.output().split('\n')[0] ?? '')).toMatchObject({ ports: gateway.ports });
    const health = await fetch(`http://127.0.0.1:${gateway.ports.http}/health`);
    expect(health.status).toBe(200);
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.ports.http}/metrics`)).text();
    expect(metrics).toMatch(/^iotflow_[a-z_]+/m);
    expect(await gateway.stop()).toBe(0);
    expect(existsSync(join(gateway.dataDir, 'run', 'ports.json'))).toBe(false);
  });

  test('keeps its data and its control socket to itself', async () => {
    const folder = tempFolder();
    const gateway = await startGateway(writeConfig(folder, {}));
    expect(statSync(join(gateway.dataDir, 'run', 'control.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(gateway.dataDir).mode & 0o077).toBe(0);
    await gateway.stop();
  });

  test('a device added while it runs can connect at once, and nobody else can', async () => {
    const folder = tempFolder();
    const configFile = writeConfig(folder, {});
    const gateway = await startGateway(configFile);
    const apiKey = await addDevice(configFile, 'esp32_001', '--name', 'Kitchen', '--type', 'environmental');
    const url = `mqtt://127.0.0.1:${gateway.ports.mqtt}`;
    const client = await connectAsync(url, { username: 'esp32_001', password: apiKey });
    await client.publishAsync('iotflow/devices/esp32_001/telemetry/environmental', '{"temperature": 23.5}', {
      qos: 1,
    });
    await client.endAsync();
    await expect(
      connectAsync(url, { username: 'esp32_001', password: 'wrong', reconnectPeriod: 0 }),
    ).rejects.toThrow();
    await expect(connectAsync(url, { reconnectPeriod: 0 })).rejects.toThrow();
    expect(gateway.output()).not.toContain(apiKey);
    const devices = await iotflow('devices', 'list', '--json', '--config', configFile);
    expect(devices).toContain('esp32_001');
    expect(devices).not.toContain(apiKey);
    await gateway.stop();
    expect(gateway.output()).not.toContain(apiKey);
  });

  test('a second gateway on the same data refuses in one clear line', async () => {
    const folder = tempFolder();
    const configFile = writeConfig(folder, {});
    const gateway = await startGateway(configFile);
    const second = await new Promise<{ code: number; text: string }>((resolve) => {
      execFile(process.execPath, [mainJs, 'run', '--config', configFile], (error, stdout, stderr) => {
        resolve({ code: typeof error?.code === 'number' ? error.code : 0, text: stdout + stderr });
      });
    });
    expect(second.code).not.toBe(0);
    expect(second.text).toMatch(/in use|running/i);
    // The first one is none the worse for it.
    expect((await fetch(`http://127.0.0.1:${gateway.ports.http}/health`)).status).toBe(200);
    expect(await gateway.stop()).toBe(0);
  });

  test('a bad configuration is answered with every fault and exit code 1', async () => {
    const folder = tempFolder();
    const path = join(folder, 'config.yaml');
    writeFileSync(path, 'version: 1\nmqtt:\n  prot: 1883\ninflux:\n  batch_points: many\n');
    for (const command of [
      ['run', '--config', path],
      ['check-config', path],
    ]) {
      const answer = await new Promise<{ code: number; text: string }>((resolve) => {
        execFile(process.execPath, [mainJs, ...command], (error, stdout, stderr) => {
          resolve({ code: typeof error?.code === 'number' ? error.code : 0, text: stdout + stderr });
        });
      });
      expect(answer.code).toBe(1);
      expect(answer.text).toContain('mqtt.prot');
      expect(answer.text).toContain('port');
      expect(answer.text).toContain('influx.batch_points');
    }
  });
});
