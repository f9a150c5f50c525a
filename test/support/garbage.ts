// A full garbage collection on demand, for tests that judge what memory is kept.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');

/** What was freed in array buffers may be given back a little later: poll for it. */
export const collectGarbage = runInNewContext('gc') as () => void;
