// One look at the machine. Everything comes from /proc and /sys by plain reads, and memory from
// systeminformation: of its functions only `mem` neither starts a process nor blocks (measured: `currentLoad`
// blocks the event loop for up to 540 ms in execSync, `cpuTemperature` costs 8 ms, `fsSize` starts df). What the
// machine does not have is left out; nothing here throws.

import { readFile, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import systeminformation from 'systeminformation';

export interface SampleOptions {
  /** The folder whose disk matters. */
  readonly dataDirectory: string;
  readonly procDirectory: string;
  readonly sysDirectory: string;
}

/** Field → value, as InfluxDB gets it; counters count since the boot of the machine or process. */
export type HostSample = Map<string, number | boolean>;

/** What the next sample needs of this one. */
export interface CpuTimes {
  readonly busy: number;
  readonly total: number;
}

async function read(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Of all cores, in ticks: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)). */
export function parseCpuTimes(text: string | undefined): CpuTimes | undefined {
  const line = text?.split('\n', 1)[0];
  if (line === undefined || !line.startsWith('cpu ')) return undefined;
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  const [user = Number.NaN, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] =
    ticks;
  const busy = user + nice + system + irq + softirq + steal;
  const total = busy + idle + iowait;
  return Number.isFinite(total) ? { busy, total } : undefined;
}

/** Bytes since boot over all interfaces but the loopback. */
export function parseNetworkBytes(text: string): { receivedBytes: number; sentBytes: number } {
  let receivedBytes = 0;
  let sentBytes = 0;
  for (const line of text.split('\n')) {
    const match = /^\s*([^\s:]+):\s*(.*)$/.exec(line);
    if (match === null || match[1] === 'lo') continue;
    const columns = (match[2] ?? '').trim().split(/\s+/).map(Number);
    const [received = 0, sent = 0] = [columns[0], columns[8]];
    if (!Number.isFinite(received) || !Number.isFinite(sent)) continue;
    receivedBytes += received;
    sentBytes += sent;
  }
  return { receivedBytes, sentBytes };
}

/** Bytes written to the block device since boot; undefined when it is not listed (tmpfs, overlay). */
export function parseDiskWritten(text: string, major: number, minor: number): number | undefined {
  for (const line of text.split('\n')) {
    const columns = line.trim().split(/\s+/);
    if (Number(columns[0]) !== major || Number(columns[1]) !== minor) continue;
    const sectors = Number(columns[9]);
    // Always sectors of 512 bytes, whatever the device has (Documentation/admin-guide/iostats.rst).
    return Number.isFinite(sectors) ? sectors * 512 : undefined;
  }
  return undefined;
}

/** The value of `Key:   123 kB` in bytes. */
function bytesOf(text: string, key: string): number | undefined {
  const match = new RegExp(`^${key}:\\s+(\\d+) kB$`, 'm').exec(text);
  return match === null ? undefined : Number(match[1]) * 1_024;
}

async function addCpu(sample: HostSample, options: SampleOptions, before: CpuTimes | undefined) {
  const { procDirectory, sysDirectory } = options;
  const now = parseCpuTimes(await read(join(procDirectory, 'stat')));
  if (now !== undefined && before !== undefined && now.total > before.total) {
    sample.set('cpu_load_percent', (100 * (now.busy - before.busy)) / (now.total - before.total));
  }
  const load = Number((await read(join(procDirectory, 'loadavg')))?.split(' ')[0]);
  if (Number.isFinite(load)) sample.set('load_1m', load);
  const temperature = Number(await read(join(sysDirectory, 'class/thermal/thermal_zone0/temp')));
  if (Number.isFinite(temperature) && temperature > 0) sample.set('cpu_temperature_c', temperature / 1_000);
  // Raspberry Pi firmware, hexadecimal: bit 0 under-voltage now, bit 2 throttled now, bit 16 under-voltage since
  // boot.
  const throttled = await read(join(sysDirectory, 'devices/platform/soc/soc:firmware/get_throttled'));
  const bits = throttled === undefined ? Number.NaN : Number.parseInt(throttled.trim(), 16);
  if (Number.isFinite(bits)) {
    sample.set('under_voltage', (bits & 0x1) !== 0);
    sample.set('throttled', (bits & 0x4) !== 0);
    sample.set('under_voltage_since_boot', (bits & 0x1_0000) !== 0);
  }
  return now;
}

async function addMemory(sample: HostSample, options: SampleOptions): Promise<void> {
  const { total, available } = await systeminformation.mem();
  if (total > 0) {
    sample.set('memory_used_bytes', total - available);
    sample.set('memory_available_bytes', available);
  }
  const status = await read(join(options.procDirectory, 'self/status'));
  if (status === undefined) return;
  const rss = bytesOf(status, 'VmRSS');
  const anon = bytesOf(status, 'RssAnon');
  if (rss !== undefined) sample.set('process_rss_bytes', rss);
  if (anon !== undefined) sample.set('process_anon_bytes', anon);
}

async function addDisk(sample: HostSample, options: SampleOptions): Promise<void> {
  const { dataDirectory, procDirectory } = options;
  const { bsize, blocks, bfree, bavail } = await statfs(dataDirectory);
  sample.set('disk_used_bytes', (blocks - bfree) * bsize);
  sample.set('disk_available_bytes', bavail * bsize);
  const { dev } = await stat(dataDirectory);
  // gnu_dev_major and gnu_dev_minor of glibc, for the 32-bit numbers Linux uses.
  const major = (dev >>> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  const diskstats = await read(join(procDirectory, 'diskstats'));
  const written = diskstats === undefined ? undefined : parseDiskWritten(diskstats, major, minor);
  if (written !== undefined) sample.set('disk_written_bytes', written);
  const io = await read(join(procDirectory, 'self/io'));
  const own = /^write_bytes: (\d+)$/m.exec(io ?? '');
  if (own !== null) sample.set('process_written_bytes', Number(own[1]));
}

async function addNetwork(sample: HostSample, options: SampleOptions): Promise<void> {
  const text = await read(join(options.procDirectory, 'net/dev'));
  if (text === undefined) return;
  const { receivedBytes, sentBytes } = parseNetworkBytes(text);
  sample.set('network_received_bytes', receivedBytes);
  sample.set('network_sent_bytes', sentBytes);
}

/** @param before Of the last sample; without it there is no CPU load yet. */
export async function takeSample(
  options: SampleOptions,
  before: CpuTimes | undefined,
): Promise<{ readonly sample: HostSample; readonly cpuTimes: CpuTimes | undefined }> {
  const sample: HostSample = new Map();
  const cpuTimes = await addCpu(sample, options, before);
  // A source that fails leaves its fields out: a missing disk figure must not hide the temperature.
  await addMemory(sample, options).catch(() => undefined);
  await addDisk(sample, options).catch(() => undefined);
  await addNetwork(sample, options).catch(() => undefined);
  return { sample, cpuTimes };
}
