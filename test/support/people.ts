// Users of a gateway, made as an operator makes them.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { iotflow, mainJs } from './gateway-process.ts';

/** Adds the user; answers an API token with the user's rights. */
export async function addUserToken(
  configFile: string,
  name: string,
  role: 'admin' | 'viewer',
): Promise<string> {
  const child = spawn(process.execPath, [
    mainJs,
    'users',
    'add',
    name,
    '--role',
    role,
    '--config',
    configFile,
  ]);
  child.stdin.end('three blind mice\n');
  await once(child, 'close');
  const answer = await iotflow('users', 'token', 'add', name, 'test', '--json', '--config', configFile);
  return (JSON.parse(answer) as { token: string }).token;
}
