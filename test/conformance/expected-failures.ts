// Cases that this gateway does not pass, each with its reason. One that passes by now is taken out with the change
// that made it pass.

const copy = 'taken for the copy a device sent before our answer arrived: docs/decisions/0002';

export const expectedFailures: Readonly<Record<string, string>> = {
  'a PUBACK is followed by a new message even with DUP': copy,
};
