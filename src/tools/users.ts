// `iotflow users …`: who may look at the gateway and change it.

import { randomBytes } from 'node:crypto';
import { dataPaths } from '../config/paths.ts';
import { systemClock } from '../platform/clock.ts';
import { fileWitness } from '../platform/witness.ts';
import { type ShownToken, type ShownUser, userOperations } from '../users/operations.ts';
import { PasswordHasher } from '../users/password.ts';
import { Users } from '../users/users.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation, type OpenStored } from './operator.ts';
import { newPassword } from './password.ts';

const common = { config: configOption, json: jsonOption };

const storedUsers: OpenStored = async ({ config, state }) => {
  const { wallMs } = systemClock();
  const users = await Users.open({
    store: state.room('users'),
    hasher: new PasswordHasher(randomBytes),
    randomBytes,
    wallMs,
    witness: fileWitness(dataPaths(config.dataDir).usersWitness),
  });
  return { operations: userOperations(users) };
};

async function call<Result>(given: Call, operation: string, args: Readonly<Record<string, unknown>>) {
  const { config } = requireConfig(given);
  return (await callOperation(config, operation, args, storedUsers)) as Result;
}

function nameOf(given: Call): string {
  return given.positionals[0] ?? '';
}

const passwordDetails =
  'The password is asked for, or read from standard input: at least 10 characters, none that is tried first.';

const addCommand: Command = {
  name: 'users add',
  summary: 'Add a user who may log in',
  positionals: ['NAME'],
  options: {
    role: { type: 'string', value: 'ROLE', help: 'admin (may change things) or viewer; default viewer' },
    ...common,
  },
  details: `${passwordDetails} Works with the gateway running and stopped.`,
  run: async (given) => {
    const password = await newPassword(given);
    const args = { name: nameOf(given), role: given.text('role') ?? 'viewer', password };
    const user = await call<ShownUser>(given, 'users.add', args);
    answer(given, user, `${user.name}: added as ${user.role}`);
    return 0;
  },
};

const listCommand: Command = {
  name: 'users list',
  summary: 'List the users',
  options: common,
  run: async (given) => {
    const result = await call<{ users: readonly ShownUser[] }>(given, 'users.list', {});
    const rows = result.users.map((user) => [
      user.name,
      user.disabled ? `${user.role} (disabled)` : user.role,
      user.created_at,
      user.password_set_at,
      String(user.tokens),
    ]);
    const table = formatTable(['NAME', 'ROLE', 'SINCE', 'PASSWORD OF', 'TOKENS'], rows);
    answer(given, result, rows.length === 0 ? 'no users yet; iotflow users claim-code' : table);
    return 0;
  },
};

const passwdCommand: Command = {
  name: 'users passwd',
  summary: 'Give a user a new password; their sessions end',
  positionals: ['NAME'],
  options: common,
  details: passwordDetails,
  run: async (given) => {
    const password = await newPassword(given);
    const user = await call<ShownUser>(given, 'users.passwd', { name: nameOf(given), password });
    answer(given, user, `${user.name}: has a new password`);
    return 0;
  },
};

/** What needs a name and nothing else. */
function plainCommand(verb: 'disable' | 'enable' | 'remove', summary: string, done: string): Command {
  return {
    name: `users ${verb}`,
    summary,
    positionals: ['NAME'],
    options: common,
    run: async (given) => {
      const user = await call<ShownUser>(given, `users.${verb}`, { name: nameOf(given) });
      answer(given, user, `${user.name}: ${done}`);
      return 0;
    },
  };
}

const roleCommand: Command = {
  name: 'users role',
  summary: 'Make a user admin or viewer; their sessions end',
  positionals: ['NAME', 'ROLE'],
  options: common,
  run: async (given) => {
    const user = await call<ShownUser>(given, 'users.role', {
      name: nameOf(given),
      role: given.positionals[1] ?? '',
    });
    answer(given, user, `${user.name}: is ${user.role} now`);
    return 0;
  },
};

const claimCodeCommand: Command = {
  name: 'users claim-code',
  summary: 'Show the code with which the first administrator is made',
  options: common,
  details: 'For one use within a quarter of an hour; a new one ends the old. Needs a running gateway.',
  run: async (given) => {
    const { config } = requireConfig(given);
    const result = await callOperation(config, 'users.claim_code', {});
    const { code, expires_in_s } = result as { code: string; expires_in_s: number };
    answer(given, result, `${code}\nHolds for ${expires_in_s / 60} minutes and one use.`);
    return 0;
  },
};

const tokenAddCommand: Command = {
  name: 'users token add',
  summary: "Make an API token with a user's rights and show it, once",
  positionals: ['NAME', 'LABEL'],
  options: {
    'expires-in-days': {
      type: 'string',
      value: 'DAYS',
      help: 'How long it holds; default until it is revoked',
    },
    ...common,
  },
  run: async (given) => {
    const days = given.text('expires-in-days');
    const result = await call<{ name: string; id: string; token: string }>(given, 'users.token_add', {
      name: nameOf(given),
      label: given.positionals[1] ?? '',
      ...(days !== undefined && { expires_in_days: Number(days) }),
    });
    answer(given, result, `${result.token}\nFor the header X-API-Key. Shown this once and stored nowhere.`);
    return 0;
  },
};

const tokenListCommand: Command = {
  name: 'users token list',
  summary: 'List the API tokens of a user',
  positionals: ['NAME'],
  options: common,
  run: async (given) => {
    const result = await call<{ tokens: readonly ShownToken[] }>(given, 'users.token_list', {
      name: nameOf(given),
    });
    const rows = result.tokens.map((token) => [
      token.id,
      token.label,
      token.created_at,
      token.expired ? 'expired' : (token.expires_at ?? '-'),
    ]);
    const table = formatTable(['ID', 'LABEL', 'SINCE', 'EXPIRES'], rows);
    answer(given, result, rows.length === 0 ? 'no tokens' : table);
    return 0;
  },
};

const tokenRevokeCommand: Command = {
  name: 'users token revoke',
  summary: 'End an API token of a user',
  positionals: ['NAME', 'ID'],
  options: common,
  run: async (given) => {
    const args = { name: nameOf(given), id: given.positionals[1] ?? '' };
    const result = await call<{ id: string; label: string }>(given, 'users.token_revoke', args);
    answer(given, result, `${result.id} (${result.label}): revoked`);
    return 0;
  },
};

export const userCommands: readonly Command[] = [
  addCommand,
  listCommand,
  passwdCommand,
  roleCommand,
  plainCommand('disable', 'Keep a user out; sessions end, tokens rest', 'may not log in any more'),
  plainCommand('enable', 'Let a disabled user in again', 'may log in again'),
  plainCommand('remove', 'Remove a user with sessions and tokens', 'removed'),
  claimCodeCommand,
  tokenAddCommand,
  tokenListCommand,
  tokenRevokeCommand,
];
