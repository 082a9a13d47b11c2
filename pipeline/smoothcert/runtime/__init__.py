"""From a job to committed rows: plan, worker sessions, executors, and what a run looks like from outside."""
