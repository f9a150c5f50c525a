// The changes an operator makes on the command line, recorded: one place for those that reach a running gateway and
// those beside a stopped one. An operation that changes something gets its line here.

import type { Operation, Operations } from '../platform/operations.ts';
import type { AuditTrail } from './audit.ts';

/** Operation → the argument that names what it changes; none for the gateway itself. */
const changes: Readonly<Record<string, string>> = {
  'devices.add': 'device_id',
  'devices.rotate': 'device_id',
  'devices.revoke': 'device_id',
  'devices.update': 'device_id',
  'devices.configure': 'device_id',
  'devices.approve': 'device_id',
  'devices.remove': 'device_id',
  'devices.pair': '',
  'devices.tokens.add': '',
  'devices.tokens.revoke': 'token_id',
  'users.add': 'name',
  'users.passwd': 'name',
  'users.role': 'name',
  'users.disable': 'name',
  'users.enable': 'name',
  'users.remove': 'name',
  'users.claim_code': '',
  'users.token_add': 'name',
  'users.token_revoke': 'name',
  'alarms.acknowledge': 'id',
  'alarms.silence': 'id',
  'commands.send': 'device_id',
  'commands.cancel': 'command_id',
  'dead-letters.replay': 'ids',
  'dead-letters.drop': 'ids',
  'field-types.forget': 'measurement',
  'history.erase': 'device_id',
};

function targetOf(args: Parameters<Operation>[0], name: string): string {
  if (name === '') return 'gateway';
  const value = args[name];
  if (value === undefined) return 'all';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The same operations; those that change something are recorded as done by `cli` once they are. */
export function auditedOperations(operations: Operations, audit: AuditTrail): Operations {
  const audited = [...operations].map(([name, run]): [string, Operation] => {
    const named = changes[name];
    if (named === undefined) return [name, run];
    const recorded: Operation = async (args) => {
      const result = await run(args);
      await audit.record({ actor: 'cli', action: name, target: targetOf(args, named) });
      return result;
    };
    return [name, recorded];
  });
  return new Map(audited);
}
