// Every route about people and what they did.

import type { Audit } from '../../users/audit.ts';
import type { People } from '../../users/people.ts';
import type { Route } from '../route.ts';
import { auditRoutes } from './audit.ts';
import { authRoutes } from './auth.ts';
import { userRoutes } from './users.ts';

export function peopleRoutes(people: People, audit: Pick<Audit, 'page'>): Route[] {
  return [...authRoutes(people), ...userRoutes(people), ...auditRoutes(audit)];
}
