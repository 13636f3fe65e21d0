"""From numbers to verdicts: what is wrong with a model, why, and what to change."""
