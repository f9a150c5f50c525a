// Properties are tried on the same inputs every time, so that a red run says something about the change at hand and
// not about luck. To look further: IOTFLOW_PROPERTY_SEED=random npm test, or a seed that failed.

import fc from 'fast-check';

const given = process.env.IOTFLOW_PROPERTY_SEED ?? '1';

if (given !== 'random') fc.configureGlobal({ seed: Number(given) });
