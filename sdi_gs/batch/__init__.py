"""Many prompts on many devices: rows, their journal, the scheduler, workers and engines."""
