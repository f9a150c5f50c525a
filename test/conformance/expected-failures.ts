// Cases that this gateway does not pass, each with its reason. One that passes by now is taken out with the change
// that made it pass.

export const expectedFailures: Readonly<Record<string, string>> = {};
