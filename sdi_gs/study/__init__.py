"""Studies: arms, prompts, seeds and budgets to runs, and their runs to tables, intervals and figures (docs/studies.md)."""
