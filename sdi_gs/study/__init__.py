"""Studies: from arms, prompts, seeds and budgets to runs, and from runs to tables and figures (docs/studies.md)."""
