"""Studies: decide on trials, launch them, collect results from the run folders, survive every crash.

spec ──▶ definition (study.json) ──┐
strategy: history ─▶ next trials ──┼─▶ driver ─▶ Hydra launcher ─▶ runs/<study>/<trial>-<seed>/result.json
journal (Optuna, a cache) ◀────────┘       ▲                                        │
                                           └────────────── collect ◀────────────────┘
"""
