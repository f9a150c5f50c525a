// What an operator may do with users, by name: one implementation for the control socket of a running gateway and for
// the command line beside a stopped one. Arguments come from outside and are checked here.

import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import { dated, isoTime, type KnownTime } from './moment.ts';
import type { SignIn } from './sign-in.ts';
import type { User } from './user.ts';
import type { Users } from './users.ts';

type Args = Parameters<Operation>[0];

function invalid(message: string): GatewayError {
  return new GatewayError('ARGUMENT_INVALID', message);
}

function text(args: Args, name: string): string {
  const value = args[name];
  if (typeof value !== 'string') throw invalid(`${name}: expected text`);
  return value;
}

const dayMs = 86_400_000;
const daysMax = 3650;

/** @throws GatewayError `ARGUMENT_INVALID` */
function lifetime(args: Args): number | undefined {
  const { expires_in_days: days } = args;
  if (days === undefined) return undefined;
  if (typeof days === 'number' && days > 0 && days <= daysMax) return days * dayMs;
  throw invalid(`expires_in_days: expected a number of days, at most ${daysMax}`);
}

export interface ShownToken {
  readonly id: string;
  readonly label: string;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly expired: boolean;
}

export interface ShownUser {
  readonly name: string;
  readonly role: string;
  readonly disabled: boolean;
  readonly created_at: string;
  readonly password_set_at: string;
  readonly tokens: number;
}

export function shownUser(
  { name, role, isDisabled, created, passwordSet, tokens }: User,
  time?: KnownTime,
): ShownUser {
  return {
    name,
    role,
    disabled: isDisabled,
    created_at: isoTime(dated(created, time).wallMs),
    password_set_at: isoTime(dated(passwordSet, time).wallMs),
    tokens: tokens.length,
  };
}

export function shownTokens(users: Users, name: string, time?: KnownTime): ShownToken[] {
  const user = users.get(name);
  if (user === undefined) throw new GatewayError('USER_UNKNOWN', `there is no user ${JSON.stringify(name)}`);
  return user.tokens.map((token) => {
    const createdMs = dated(token.created, time).wallMs;
    return {
      id: token.id,
      label: token.label,
      created_at: isoTime(createdMs),
      expires_at: token.lifetimeMs === undefined ? null : isoTime(createdMs + token.lifetimeMs),
      expired: users.isExpired(token),
    };
  });
}

/** `users.…`. Without `signIn` (beside a stopped gateway) there is no claim code: add a user instead. */
export function userOperations(
  users: Users,
  { signIn, time }: { readonly signIn?: SignIn; readonly time?: KnownTime } = {},
): Operations {
  const shown = (user: User) => shownUser(user, time);
  const table: Readonly<Record<string, Operation>> = {
    'users.add': async (args) => {
      const [name, role, password] = [text(args, 'name'), text(args, 'role'), text(args, 'password')];
      return shown(await users.add({ name, role, password }));
    },
    'users.list': async () => {
      const list = users.list().map(shown);
      return { count: list.length, users: list };
    },
    'users.passwd': async (args) =>
      shown(await users.setPassword(text(args, 'name'), text(args, 'password'))),
    'users.role': async (args) => shown(await users.setRole(text(args, 'name'), text(args, 'role'))),
    'users.disable': async (args) => shown(await users.setDisabled(text(args, 'name'), true)),
    'users.enable': async (args) => shown(await users.setDisabled(text(args, 'name'), false)),
    'users.remove': async (args) => shown(await users.remove(text(args, 'name'))),
    'users.token_add': async (args) => {
      const [name, label] = [text(args, 'name'), text(args, 'label')];
      const { token, stored } = await users.issueToken(name, { label, lifetimeMs: lifetime(args) });
      return { name, id: stored.id, token };
    },
    'users.token_list': async (args) => {
      const tokens = shownTokens(users, text(args, 'name'), time);
      return { count: tokens.length, tokens };
    },
    'users.token_revoke': async (args) => {
      const { id, label } = await users.revokeToken(text(args, 'name'), text(args, 'id'));
      return { id, label };
    },
  };
  const operations = new Map(Object.entries(table));
  if (signIn !== undefined) {
    operations.set('users.claim_code', async () => {
      const issued = signIn.issueClaimCode();
      if (issued !== undefined) return { code: issued.code, expires_in_s: issued.lifetimeMs / 1000 };
      throw new GatewayError(
        'CLAIM_CONFLICT',
        'there is an administrator already; iotflow users passwd gives one a new password',
      );
    });
  }
  return operations;
}
