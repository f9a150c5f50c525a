// Logging in and out, claiming a new gateway, the own password and the own API tokens. What is wrong about a login is
// not said: not whether there is such a user.

import * as v from 'valibot';
import type { People } from '../../users/people.ts';
import type { Refused, SignedIn } from '../../users/sign-in.ts';
import type { User } from '../../users/user.ts';
import { refusal } from '../refusal.ts';
import { type Answer, type Role, type Route, type RouteRequest, route } from '../route.ts';
import { sessionCookie, setSessionCookie } from '../session-cookie.ts';

const people: readonly Role[] = ['viewer'];

function text(charactersMax: number, ...examples: string[]) {
  const expected = `text of 1 to ${charactersMax} characters`;
  return v.pipe(
    v.string(expected),
    v.minLength(1, expected),
    v.maxLength(charactersMax, expected),
    v.examples(examples),
  );
}

const name = text(64, 'anna');
const password = text(1024);
const newPassword = v.pipe(text(1024), v.description('At least 10 characters, none that is tried first'));
const time = v.pipe(v.string(), v.isoTimestamp());

const whoSchema = v.strictObject({ name, role: v.picklist(['admin', 'viewer']) });

const tokenSchema = v.strictObject({
  id: v.string(),
  label: v.string(),
  created_at: time,
  expires_at: v.pipe(v.nullable(time), v.description('null: it holds until it is revoked')),
  expired: v.boolean(),
});

const daysMax = 3650;
const daysExpected = `a number of days above 0, at most ${daysMax}`;
const days = v.pipe(v.number(daysExpected), v.gtValue(0, daysExpected), v.maxValue(daysMax, daysExpected));

function who({ name, role }: Pick<User, 'name' | 'role'>) {
  return { name, role };
}

/** Only users get past the access of these routes. */
function nameOf({ caller }: Pick<RouteRequest, 'caller'>): string {
  return caller.kind === 'user' ? caller.name : '';
}

export function authRoutes({ users, sessions, signIn, lifetimeMs, shownTokens }: People): Route[] {
  function refused(tried: Refused, message: string): Answer {
    if (tried.kind === 'wrong') return refusal('UNAUTHENTICATED', message);
    const notes = { retryAfterS: tried.waitMs / 1000 };
    return refusal('RATE_LIMITED', 'too many wrong ones in a row; see Retry-After', notes);
  }

  function signedIn(
    tried: SignedIn | Refused,
    { isSecure }: Pick<RouteRequest, 'isSecure'>,
    message: string,
    status = 200,
  ): Answer {
    if (tried.kind !== 'in') return refused(tried, message);
    const headers = { 'set-cookie': setSessionCookie(tried.cookie, { isSecure, lifetimeMs }) };
    return { status, body: who(tried.user), headers, audited: { target: tried.user.name } };
  }

  return [
    route({
      method: 'POST',
      path: '/api/v1/auth/claim',
      tag: 'auth',
      summary: 'Make the first administrator, with the code of `iotflow users claim-code`',
      access: 'anyone',
      audit: 'user.claim',
      body: v.strictObject({ code: text(64, '7Q4F-0M2X-9KDW-3TCA'), name, password: newPassword }),
      answers: {
        201: { description: 'Made, and logged in: the cookie is set', schema: whoSchema },
        401: 'The code is wrong or has expired, or there is an administrator already',
      },
      handle: async (request) => {
        const { body, address } = request;
        return signedIn(await signIn.claim({ ...body, address }), request, 'this code does not hold', 201);
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/auth/login',
      tag: 'auth',
      summary: 'Log in',
      access: 'anyone',
      audit: 'user.login',
      body: v.strictObject({ name, password }),
      answers: {
        200: { description: 'Logged in: the cookie is set', schema: whoSchema },
        401: 'Name or password is wrong, or the user is disabled',
      },
      handle: async (request) => {
        const { body, address } = request;
        return signedIn(await signIn.login({ ...body, address }), request, 'name or password is wrong');
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/auth/logout',
      tag: 'auth',
      summary: 'Log out, here or everywhere; without a session nothing happens',
      access: 'anyone',
      audit: 'user.logout',
      body: v.optional(v.strictObject({ everywhere: v.optional(v.boolean('true or false'), false) })),
      answers: { 204: 'The session has ended, and the cookie is taken back' },
      handle: async (request) => {
        const { headers, isSecure, caller, body } = request;
        const cookie = sessionCookie(headers, isSecure);
        if (cookie !== undefined) await sessions.end(cookie);
        const isEverywhere = body?.everywhere === true && caller.kind === 'user';
        if (isEverywhere) await users.endSessions(caller.name);
        return {
          status: 204,
          headers: { 'set-cookie': setSessionCookie(undefined, { isSecure, lifetimeMs }) },
          audited:
            caller.kind === 'user'
              ? { target: caller.name, detail: { everywhere: isEverywhere } }
              : 'nothing',
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/auth/session',
      tag: 'auth',
      summary: 'Who I am',
      access: people,
      answers: { 200: { description: 'The user of the session or of the API token', schema: whoSchema } },
      handle: ({ caller }) =>
        caller.kind === 'user'
          ? { status: 200, body: who(caller) }
          : refusal('FORBIDDEN', 'this is for users'),
    }),
    route({
      method: 'POST',
      path: '/api/v1/auth/password',
      tag: 'auth',
      summary: 'Change the own password; every session ends but the one this begins',
      access: people,
      audit: 'user.password',
      body: v.strictObject({ current_password: password, new_password: newPassword }),
      answers: {
        200: { description: 'Changed: a new cookie is set', schema: whoSchema },
        401: 'The current password is wrong',
      },
      handle: async (request) => {
        const { body, address } = request;
        const attempted = { password: body.current_password, address };
        const changed = await signIn.changePassword(nameOf(request), attempted, body.new_password);
        return signedIn(changed, request, 'the current password is wrong');
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/auth/tokens',
      tag: 'auth',
      summary: 'The own API tokens',
      access: people,
      answers: {
        200: {
          description: 'What is known of them; their texts are stored nowhere',
          schema: v.strictObject({ tokens: v.array(tokenSchema), count: v.number() }),
        },
      },
      handle: (request) => {
        const tokens = shownTokens(nameOf(request));
        return { status: 200, body: { tokens, count: tokens.length } };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/auth/tokens',
      tag: 'auth',
      summary: 'Make an API token with the own rights; needs the password once more',
      description:
        'For the header X-API-Key. Whoever has but a session must not be able to stay for longer than it.',
      access: people,
      audit: 'user.token_add',
      body: v.strictObject({
        label: text(64, 'grafana'),
        password,
        expires_in_days: v.optional(v.pipe(days, v.examples([90]))),
      }),
      answers: {
        201: {
          description: 'The token, shown this once',
          schema: v.strictObject({ id: v.string(), label: v.string(), token: v.string() }),
        },
        401: 'The password is wrong',
      },
      handle: async (request) => {
        const { body, address } = request;
        const own = nameOf(request);
        const tried = await signIn.confirm(own, { password: body.password, address });
        if (tried.kind !== 'in') return refused(tried, 'the password is wrong');
        const { label, expires_in_days } = body;
        const lifetime = expires_in_days === undefined ? undefined : expires_in_days * 86_400_000;
        const { token, stored } = await users.issueToken(own, { label, lifetimeMs: lifetime });
        const audited = { target: own, detail: { id: stored.id, label } };
        return { status: 201, body: { id: stored.id, label, token }, audited };
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/v1/auth/tokens/{id}',
      tag: 'auth',
      summary: 'End an own API token',
      access: people,
      audit: 'user.token_revoke',
      params: v.strictObject({ id: v.string('the id of a token') }),
      answers: { 204: 'It holds no more', 404: 'There is no such token' },
      handle: async (request) => {
        const { id, label } = await users.revokeToken(nameOf(request), request.params.id);
        return { status: 204, audited: { target: nameOf(request), detail: { id, label } } };
      },
    }),
  ];
}
