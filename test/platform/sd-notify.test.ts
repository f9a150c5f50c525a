import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { SdNotify } from '../../src/platform/sd-notify.ts';
import { hasCommand } from '../support/debian.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const log = pino({ level: 'silent' });
const hasSystemd = hasCommand('systemd-notify') && hasCommand('python3');
const needs = '(needs Debian packages systemd and python3)';

// systemd's end of the protocol: a datagram socket; a barrier is answered by closing the descriptor it carries.
const receiver = `
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True:
    text, extra, _, _ = s.recvmsg(4096, socket.CMSG_SPACE(16))
    for level, kind, raw in extra:
        if kind == socket.SCM_RIGHTS:
            for fd in array.array("i", raw[:len(raw) // 4 * 4]): os.close(fd)
    for line in text.decode().split("\\n"):
        if line and not line.startswith("BARRIER"): print(line, flush=True)
`;

async function systemd() {
  const socket = join(tempFolder(), 'notify');
  const child: ChildProcess = spawn('python3', ['-c', receiver, socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill());
  const received: string[] = [];
  const lines = createInterface({ input: child.stdout! });
  await once(lines, 'line');
  lines.on('line', (line) => received.push(line));
  return { socket, received };
}

test.skipIf(!hasSystemd)(`systemd hears READY, the status and STOPPING ${needs}`, async () => {
  const { socket, received } = await systemd();
  const notify = SdNotify.open({ environment: { NOTIFY_SOCKET: socket }, isHealthy: () => true, log });
  notify.ready('12 "devices" $HOME\nall dry');
  await until(() => received.length === 2);
  await notify.stopping();
  await until(() => received.length === 3);
  expect(received).toEqual(['READY=1', 'STATUS=12 "devices" $HOME all dry', 'STOPPING=1']);
});

test.skipIf(!hasSystemd)(
  `the watchdog is fed while the gateway is healthy, and no longer ${needs}`,
  async () => {
    const { socket, received } = await systemd();
    let isHealthy = true;
    const notify = SdNotify.open({
      environment: { ...process.env, NOTIFY_SOCKET: socket, WATCHDOG_USEC: '100000' },
      isHealthy: () => isHealthy,
      log,
    });
    onTestFinished(() => notify.stopping());
    const fed = () => received.filter((line) => line === 'WATCHDOG=1').length;
    notify.ready('up');
    await until(() => fed() >= 3);
    isHealthy = false;
    // What is on its way may still arrive; the end of the queue is marked.
    notify.status('sick');
    await until(() => received.includes('STATUS=sick'));
    const before = fed();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(fed()).toBe(before);
  },
);

test('outside systemd nothing happens', async () => {
  const notify = SdNotify.open({ environment: {}, isHealthy: () => true, log });
  notify.ready('up');
  notify.status('still up');
  await notify.stopping();
});

test('where systemd-notify is missing the log says so, once', async () => {
  const lines: string[] = [];
  const notify = SdNotify.open({
    environment: { NOTIFY_SOCKET: '/nowhere', PATH: tempFolder() },
    isHealthy: () => true,
    log: pino({ level: 'error' }, { write: (line: string) => void lines.push(line) }),
  });
  notify.ready('up');
  await until(() => lines.length > 0);
  notify.status('still up');
  await notify.stopping();
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('systemd-notify is missing');
});
