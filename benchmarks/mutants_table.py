"""The tables of benchmarks/mutants.py: which tests hold which module, and which changes change nothing."""

from __future__ import annotations

from collections.abc import Mapping

MODULES: Mapping[str, tuple[str, ...]] = {
    "ablations/run.py": ("test_run.py", "test_plan.py", "test_failures.py"),
    "ablations/runs.py": ("test_runs.py", "test_lease.py", "test_run.py"),
    "ablations/plan.py": ("test_plan.py", "test_conf.py", "test_run.py"),
    "ablations/files.py": ("test_files.py", "test_runs.py", "data/test_store.py"),
    "ablations/lease.py": ("test_lease.py", "test_runs.py"),
    "ablations/mixture/audit.py": ("mixture/test_sampler.py", "mixture/*", "test_run.py"),
    "ablations/mixture/mixture.py": ("mixture/test_mixture.py", "mixture/*", "test_plan.py"),
    "ablations/mixture/sampler.py": ("mixture/test_sampler.py", "mixture/*", "test_plan.py"),
    "ablations/mixture/reader.py": ("training/test_feed.py", "mixture/*", "test_run.py"),
    "ablations/mixture/*.py": (
        "mixture/test_schedule.py",
        "mixture/*",
        "test_plan.py",
        "test_conf.py",
    ),
    "ablations/evaluation/rule.py": ("evaluation/test_score_rule.py", "evaluation/test_eval*"),
    "ablations/evaluation/results.py": (
        "evaluation/test_evaluation_results.py",
        "evaluation/test_score*",
        "evaluation/test_special*",
    ),
    "ablations/evaluation/scoring.py": (
        "evaluation/test_score_checkpoints.py",
        "evaluation/test_special*",
        "evaluation/test_lighteval*",
        "test_run.py",
    ),
    "ablations/evaluation/requests.py": (
        "evaluation/test_scoring_engine.py",
        "evaluation/test_lighteval*",
        "evaluation/test_score*",
    ),
    "ablations/evaluation/matching.py": ("evaluation/test_lighteval*", "evaluation/test_score*"),
    "ablations/evaluation/items.py": (
        "evaluation/test_evaluation_items.py",
        "evaluation/test_score*",
    ),
    "ablations/training/start.py": (
        "training/test_start.py",
        "training/test_checkpoint*",
        "test_run.py",
    ),
    "ablations/training/checkpoints.py": (
        "training/test_checkpoint*",
        "training/test_start.py",
        "test_run.py",
    ),
    "ablations/training/feed.py": (
        "training/test_feed.py",
        "training/test_worker.py",
        "test_run.py",
    ),
    "ablations/training/loss.py": (
        "training/test_packing_and_loss.py",
        "training/test_nanotron*",
    ),
    "ablations/training/health.py": (
        "training/test_training_health.py",
        "training/test_nanotron*",
        "test_run.py",
    ),
    "ablations/training/nanotron/steps.py": (
        "training/test_nanotron*",
        "test_run.py",
    ),
    "ablations/data/contamination.py": (
        "data/test_contamination.py",
        "data/test_overlaps.py",
        "data/test_prepare.py",
    ),
    "ablations/data/finish.py": ("data/test_prepare.py", "data/test_store.py"),
    "ablations/data/steps.py": ("data/test_prepare.py", "data/test_contamination.py"),
    "ablations/data/store.py": ("data/test_store.py", "data/test_prepare.py"),
    "ablations/data/verified.py": ("data/test_store.py", "data/test_prepare.py"),
    "sweeps/space/*.py": (
        "sweeps/test_space.py",
        "sweeps/test_designs.py",
        "sweeps/test_proposals.py",
    ),
    "sweeps/designs/*.py": ("sweeps/test_designs.py", "sweeps/study/test_study_levels.py"),
    "sweeps/surrogates/*.py": (
        "sweeps/test_surrogates.py",
        "sweeps/test_proposals.py",
        "sweeps/test_trust.py",
    ),
    "sweeps/proposals/trust.py": ("sweeps/test_trust.py", "sweeps/test_proposals.py"),
    "sweeps/proposals/*.py": ("sweeps/test_proposals.py", "sweeps/test_trust.py"),
    "sweeps/study/strategy.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/harvest.py": (
        "sweeps/study/test_study_harvest.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/budget.py": (
        "sweeps/study/test_study_harvest.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/driver.py": (
        "sweeps/study/test_study_driver.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/objective.py": (
        "sweeps/study/test_study_score.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/confirm.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/agenda.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/journal.py": (
        "sweeps/study/test_study_records.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/state.py": (
        "sweeps/study/test_study_records.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/verdict/items.py": ("sweeps/verdict/test_verdict_items.py", "sweeps/verdict/*"),
    "sweeps/verdict/noise.py": ("sweeps/verdict/test_verdict_noise.py", "sweeps/verdict/*"),
    "sweeps/verdict/signal.py": ("sweeps/verdict/test_verdict_signal.py", "sweeps/verdict/*"),
    "sweeps/verdict/transfer.py": ("sweeps/verdict/test_verdict_signal.py", "sweeps/verdict/*"),
    "sweeps/verdict/contrasts.py": ("sweeps/verdict/test_verdict_contrasts.py", "sweeps/verdict/*"),
    "sweeps/verdict/draws.py": ("sweeps/verdict/test_verdict_contrasts.py", "sweeps/verdict/*"),
    "sweeps/verdict/decision.py": ("sweeps/verdict/test_verdict_decision.py", "sweeps/verdict/*"),
    "sweeps/verdict/power.py": ("sweeps/verdict/test_verdict_decision.py", "sweeps/verdict/*"),
    "sweeps/verdict/*.py": (
        "sweeps/verdict/test_verdict_study.py",
        "sweeps/verdict/*",
        "analysis/test_report.py",
    ),
    "sweeps/promotion/freeze.py": (
        "sweeps/promotion/test_promotion_parts.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/gates.py": ("sweeps/promotion/test_promotion_gates.py", "sweeps/promotion/*"),
    "sweeps/promotion/compare.py": (
        "sweeps/promotion/test_promotion_compare.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/calibration.py": (
        "sweeps/promotion/test_promotion_compare.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/prediction.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/scale.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/slopes.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/promote.py": ("sweeps/promotion/test_promote.py", "sweeps/promotion/*"),
    "sweeps/nanotron_files/writing.py": (
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
        "sweeps/promotion/test_promote.py",
    ),
    "sweeps/nanotron_files/rates.py": (
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
        "sweeps/promotion/test_promote.py",
    ),
    "sweeps/nanotron_files/chain.py": (
        "sweeps/promotion/test_promote.py",
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
    ),
    "sweeps/exporters/*.py": ("sweeps/exporters/test_exporting.py", "sweeps/exporters/*"),
    "analysis/records.py": ("analysis/test_frames.py", "analysis/test_re*"),
    "analysis/frames/*.py": ("analysis/test_frames.py", "analysis/test_[fr]*"),
    "analysis/study.py": ("analysis/test_report.py", "analysis/test_[frw]*"),
}
"""Glob of modules that decide results → globs of the tests under tests/ that hold them, the own first.

A module belongs to the first glob that it matches.
"""

EQUIVALENT: Mapping[str, str] = {}
"""Changes that nothing but text, speed or the type checker could show, by their name, with the reason."""
