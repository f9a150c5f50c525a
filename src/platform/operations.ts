// What an operator may ask of the gateway, by name. The same operations serve the control socket of a running
// gateway and the command line when none runs.

/**
 * Takes and answers JSON values. Throws GatewayError for what the operator can mend.
 * @param signal whoever asked has gone: the answer is for nobody
 */
export type Operation = (args: Readonly<Record<string, unknown>>, signal?: AbortSignal) => Promise<unknown>;

/** Name (`devices.add`) → operation. */
export type Operations = ReadonlyMap<string, Operation>;
