"""A study: trials asked for, launched, collected from their run folders, and kept through every crash.

spec ──▶ definition (study.json) ──┐
strategy: history ─▶ next trials ──┼─▶ driver ─▶ Hydra launcher ─▶ runs/<study>/<trial>-<seed>/result.json
journal (Optuna, a cache) ◀────────┘       ▲                                        │
                                           └────────────── collect ◀────────────────┘
"""
