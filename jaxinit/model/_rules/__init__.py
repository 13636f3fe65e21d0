"""`reinit` and `preview`: which parameters a rule meets, and what they get by it."""
