// Classes of points by number, as frames and blocks have them: in the order of `pointClasses`.

import type { PointClass } from '../model/point.ts';

export type ClassIndex = 0 | 1 | 2;
export type ByClass<T> = Readonly<Record<PointClass, T>>;

export const classIndexes: readonly ClassIndex[] = [0, 1, 2];

export function byClass<T>(value: (index: ClassIndex) => T): ByClass<T> {
  return { alarm: value(0), event: value(1), telemetry: value(2) };
}
