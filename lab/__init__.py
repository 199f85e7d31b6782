"""A bias–variance experiment lab driven by hyperparameter search.

study (command line) → search (Optuna asks) → workers → training (many replicas, one stacked program)
→ tracking (MLflow) → history (read back as tables) → analysis → report. `lab.spec` says what a study is,
`lab.seeds` where randomness comes from, `lab.storage` where things lie, `lab.data` and `lab.models` what is trained.
"""

__version__ = "0.1.0"
