"""Claims, leases and finalizes: who works which step, proved by conditional commits.

`step_ledger` is the way in. What may be done is decided by pure functions (`decisions`, `intents`,
`commit_plan`); `run_commit` writes it, `group_commit` for all threads at once; `heart_beats` renews.
"""
