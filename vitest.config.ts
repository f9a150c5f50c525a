import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/property-seed.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Real sockets, real fsync and child processes: two at a time keeps a two-core machine honest.
    maxWorkers: 2,
  },
});
