// What a gateway has on its disk: the built program and the packages for running, put there without a single install
// script (classic-level brings its binary along). Proves that this starts, answers and stops.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'iotflow-install-'));
try {
  for (const name of ['package.json', 'package-lock.json', '.npmrc', 'dist']) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  const options = [
    '--ignore-scripts',
    '--omit=dev',
    '--omit=optional',
    '--prefer-offline',
    '--no-audit',
    '--no-fund',
  ];
  const { status } = spawnSync('npm', ['ci', ...options], { cwd: folder, stdio: 'inherit' });
  if (status !== 0) throw new Error('npm ci failed');
  for (const name of ['vitest', 'typescript', '@biomejs/biome']) {
    if (existsSync(join(folder, 'node_modules', name))) throw new Error(`${name} is not needed for running`);
  }

  const ports = { port: 0, tls: { port: 0 }, ws: { port: 0 } };
  const config = { version: 1, data_dir: 'data', mqtt: ports, http: { port: 0 } };
  // JSON is YAML.
  writeFileSync(join(folder, 'config.yaml'), JSON.stringify(config));
  const gateway = spawn(process.execPath, ['dist/main.js', 'run'], { cwd: folder, stdio: 'inherit' });
  const exited = new Promise((resolve) => gateway.once('exit', resolve));
  const portsFile = join(folder, 'data', 'run', 'ports.json');
  while (!existsSync(portsFile)) {
    if (gateway.exitCode !== null) throw new Error('the gateway ended');
    await sleep(50);
  }
  const { http } = JSON.parse(readFileSync(portsFile, 'utf8'));
  const health = await fetch(`http://127.0.0.1:${http}/health`);
  if (health.status !== 200) throw new Error(`/health answers ${health.status}`);
  gateway.kill('SIGTERM');
  const code = await exited;
  if (code !== 0) throw new Error(`the gateway ended with ${code}`);
  console.log('production install: starts, answers and stops without any install script');
} finally {
  rmSync(folder, { recursive: true, force: true });
}
