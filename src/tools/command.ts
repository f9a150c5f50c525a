// What a command of the one binary is: its words, its options, what it does. `cli.ts` finds and runs it.

import type { Environment } from '../config/environment.ts';

/** Where text goes; process.stdout is one. */
export interface Output {
  write(text: string | Uint8Array): unknown;
}

export interface CommandOption {
  readonly type: 'string' | 'boolean';
  /** What stands for the value in the help: `FILE`. */
  readonly value?: string;
  readonly help: string;
}

/** One command as it was called. */
export interface Call {
  readonly positionals: readonly string[];
  /** The value of a text option; undefined when it was not given. */
  text(option: string): string | undefined;
  flag(option: string): boolean;
  readonly env: Environment;
  /** Of this program. */
  readonly version: string;
  readonly stdout: Output;
  readonly stderr: Output;
}

export interface Command {
  /** Its words: `devices add`. */
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Names of the positional arguments, `[FILE]` when it may be left out, `ID…` when there may be several. */
  readonly positionals?: readonly string[];
  readonly options?: Readonly<Record<string, CommandOption>>;
  /** Further lines of its help. */
  readonly details?: string;
  /**
   * Answers the exit code: 0 done, 1 failed, 2 called wrongly.
   * @throws GatewayError for what the operator can mend: shown in one line, exit code 1.
   */
  run(call: Call): Promise<number>;
}

export const configOption: CommandOption = {
  type: 'string',
  value: 'FILE',
  help: 'Configuration; else $IOTFLOW_CONFIG, else config.yaml here, else defaults',
};

export const jsonOption: CommandOption = { type: 'boolean', help: 'Answer in JSON' };

/** Prints an answer: JSON when asked for it, else the text for people. */
export function answer(call: Call, result: unknown, text: string): void {
  call.stdout.write(call.flag('json') ? `${JSON.stringify(result)}\n` : `${text}\n`);
}

/** Columns for people, as wide as their widest cell. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows];
  const widths = head.map((_, column) =>
    lines.reduce((widest, line) => Math.max(widest, line[column]?.length ?? 0), 0),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
