// Users over HTTP, for administrators. One's own password is changed with the old one (auth.ts), also by them.

import * as v from 'valibot';
import type { People } from '../../users/people.ts';
import { refusal } from '../refusal.ts';
import { type Role, type Route, route } from '../route.ts';

const admins: readonly Role[] = ['admin'];

const time = v.pipe(v.string(), v.isoTimestamp());
const roleSchema = v.picklist(['admin', 'viewer'], 'admin or viewer');
const password = v.pipe(
  v.string('text'),
  v.maxLength(1024, 'at most 1024 characters'),
  v.description('At least 10 characters, none that is tried first'),
);

const userSchema = v.strictObject({
  name: v.pipe(v.string(), v.examples(['anna'])),
  role: roleSchema,
  disabled: v.boolean(),
  created_at: time,
  password_set_at: time,
  tokens: v.pipe(v.number(), v.description('How many API tokens there are')),
});

const params = v.strictObject({ name: v.pipe(v.string('the name of a user'), v.examples(['anna'])) });

export function userRoutes({ users, shown }: People): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/users',
      tag: 'users',
      summary: 'Every user',
      access: admins,
      answers: {
        200: {
          description: 'The users, by name',
          schema: v.strictObject({ users: v.array(userSchema), count: v.number() }),
        },
      },
      handle: () => {
        const list = users.list().map(shown);
        return { status: 200, body: { users: list, count: list.length } };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/users',
      tag: 'users',
      summary: 'Add a user',
      access: admins,
      audit: 'user.add',
      body: v.strictObject({
        name: v.pipe(v.string('1 to 32 characters of a-z, 0-9, dot, - and _'), v.examples(['bert'])),
        role: roleSchema,
        password,
      }),
      answers: {
        201: { description: 'Added', schema: userSchema },
        409: 'There is one of this name already',
      },
      handle: async ({ body }) => {
        const user = await users.add(body);
        return {
          status: 201,
          body: shown(user),
          audited: { target: user.name, detail: { role: user.role } },
        };
      },
    }),
    route({
      method: 'PATCH',
      path: '/api/v1/users/{name}',
      tag: 'users',
      summary:
        'Give a user another role or a new password, keep one out or let one in; the sessions of the user end',
      access: admins,
      audit: 'user.change',
      params,
      body: v.pipe(
        v.strictObject({
          role: v.optional(roleSchema),
          disabled: v.optional(v.boolean('true or false')),
          password: v.optional(password),
        }),
        v.check((body) => Object.keys(body).length === 1, 'exactly one of role, disabled and password'),
      ),
      answers: {
        200: { description: 'Changed', schema: userSchema },
        404: 'There is no such user',
        409: 'It is the only administrator',
      },
      handle: async ({ params: { name }, body, caller }) => {
        if (body.password !== undefined && caller.kind === 'user' && users.get(name)?.name === caller.name) {
          return refusal(
            'FORBIDDEN',
            'the own password is changed at /api/v1/auth/password, with the old one',
          );
        }
        // The schema lets one of them through, so that no change is done by half.
        if (body.role !== undefined) await users.setRole(name, body.role);
        if (body.disabled !== undefined) await users.setDisabled(name, body.disabled);
        if (body.password !== undefined) await users.setPassword(name, body.password);
        const user = users.get(name);
        if (user === undefined) return refusal('USER_UNKNOWN', 'the user was removed meanwhile');
        const { role, disabled } = body;
        const changed = { ...(role !== undefined && { role }), ...(disabled !== undefined && { disabled }) };
        const detail = body.password === undefined ? changed : { changed: 'the password' };
        return { status: 200, body: shown(user), audited: { target: user.name, detail } };
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/v1/users/{name}',
      tag: 'users',
      summary: 'Remove a user, with sessions and API tokens',
      access: admins,
      audit: 'user.remove',
      params,
      answers: { 204: 'Removed', 404: 'There is no such user', 409: 'It is the only administrator' },
      handle: async ({ params: { name } }) => {
        const { name: target } = await users.remove(name);
        return { status: 204, audited: { target } };
      },
    }),
  ];
}
