"""The tables of benchmarks/mutants.py: which tests hold which module, and which changes change nothing."""

from __future__ import annotations

from collections.abc import Mapping

MODULES: Mapping[str, tuple[str, ...]] = {
    "ablations/execute.py": (
        "test_run.py",
        "test_plan.py",
        "test_pinned_runs.py",
        "test_failures.py",
    ),
    "ablations/record/run_record.py": ("test_runs.py", "test_lease.py", "test_run.py"),
    "ablations/plan.py": ("test_plan.py", "test_pinned_runs.py", "test_conf.py", "test_run.py"),
    "ablations/files.py": (
        "test_files.py",
        "test_thresholds.py",
        "test_runs.py",
        "data/test_store.py",
    ),
    "ablations/record/lease.py": ("test_lease.py", "test_runs.py"),
    "ablations/mixture/audit.py": (
        "mixture/test_sampler.py",
        "test_pinned_runs.py",
        "mixture/*",
        "test_run.py",
    ),
    "ablations/mixture/mixture.py": (
        "mixture/test_mixture.py",
        "test_pinned_runs.py",
        "mixture/*",
        "test_plan.py",
    ),
    "ablations/mixture/sampler.py": (
        "mixture/test_sampler.py",
        "test_pinned_runs.py",
        "mixture/*",
        "test_plan.py",
    ),
    "ablations/mixture/reader.py": ("training/test_feed.py", "mixture/*", "test_run.py"),
    "ablations/mixture/*.py": (
        "mixture/test_schedule.py",
        "test_pinned_runs.py",
        "mixture/*",
        "test_plan.py",
        "test_conf.py",
    ),
    "ablations/evaluation/score_rule.py": (
        "evaluation/test_score_rule.py",
        "test_pinned_runs.py",
        "evaluation/test_eval*",
    ),
    "ablations/evaluation/results.py": (
        "evaluation/test_evaluation_results.py",
        "evaluation/test_scores_pinned.py",
        "evaluation/test_score*",
        "evaluation/test_special*",
    ),
    "ablations/evaluation/scoring.py": (
        "evaluation/test_score_checkpoints.py",
        "evaluation/test_special*",
        "evaluation/test_lighteval*",
        "test_run.py",
    ),
    "ablations/evaluation/prefix_packing.py": (
        "evaluation/test_scoring_engine.py",
        "evaluation/test_scores_pinned.py",
        "evaluation/test_lighteval*",
        "evaluation/test_score*",
    ),
    "ablations/evaluation/metric_matching.py": (
        "test_pinned_runs.py",
        "evaluation/test_lighteval*",
        "evaluation/test_score*",
    ),
    "ablations/evaluation/items.py": (
        "evaluation/test_evaluation_items.py",
        "evaluation/test_score*",
    ),
    "ablations/training/resume.py": (
        "training/test_start.py",
        "training/test_checkpoint*",
        "test_run.py",
    ),
    "ablations/training/checkpoints.py": (
        "training/test_checkpoint*",
        "test_thresholds.py",
        "training/test_start.py",
        "test_run.py",
    ),
    "ablations/training/dataloader.py": (
        "training/test_feed.py",
        "training/test_worker.py",
        "test_run.py",
    ),
    "ablations/training/loss.py": (
        "training/test_packing_and_loss.py",
        "training/test_nanotron*",
    ),
    "ablations/training/loss_monitor.py": (
        "training/test_training_health.py",
        "test_thresholds.py",
        "training/test_nanotron*",
        "test_run.py",
    ),
    "ablations/training/nanotron/optimizer_step.py": (
        "training/test_nanotron*",
        "test_run.py",
    ),
    "ablations/data/contamination.py": (
        "data/test_contamination.py",
        "test_pinned_runs.py",
        "data/test_overlaps.py",
        "data/test_prepare.py",
    ),
    "ablations/data/finalize.py": ("data/test_prepare.py", "data/test_store.py"),
    "ablations/data/pipeline.py": ("data/test_prepare.py", "data/test_contamination.py"),
    "ablations/data/store.py": ("data/test_store.py", "data/test_prepare.py"),
    "ablations/data/verified.py": ("data/test_store.py", "data/test_prepare.py"),
    "sweeps/search/space/*.py": (
        "sweeps/test_space.py",
        "sweeps/test_space_*",
        "sweeps/test_designs.py",
        "sweeps/test_pinned_*",
        "sweeps/test_proposals.py",
    ),
    "sweeps/search/designs/*.py": (
        "sweeps/test_designs.py",
        "sweeps/test_design_*",
        "sweeps/test_pinned_*",
        "sweeps/study/test_study_levels.py",
    ),
    "sweeps/search/surrogates/*.py": (
        "sweeps/test_surrogates.py",
        "sweeps/test_pinned_*",
        "sweeps/test_rungs.py",
        "sweeps/test_inducing.py",
        "sweeps/test_proposals.py",
        "sweeps/test_trust.py",
    ),
    "sweeps/search/proposals/optimum_tests.py": (
        "sweeps/test_trust.py",
        "sweeps/test_proposal_*",
        "sweeps/test_pinned_*",
        "sweeps/test_proposals.py",
    ),
    "sweeps/search/proposals/*.py": (
        "sweeps/test_proposals.py",
        "sweeps/test_proposal_*",
        "sweeps/test_pinned_*",
        "sweeps/test_rungs.py",
        "sweeps/test_trust.py",
    ),
    "sweeps/study/strategy.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/run_results.py": (
        "sweeps/study/test_study_results.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/budget.py": (
        "sweeps/study/test_study_results.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/driver.py": (
        "sweeps/study/test_study_driver.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/objective.py": (
        "sweeps/study/test_study_score.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/confirm.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/scheduler.py": (
        "sweeps/study/test_study_strategy.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/journal.py": (
        "sweeps/study/test_study_records.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/study/study_state.py": (
        "sweeps/study/test_study_records.py",
        "sweeps/study/test_study_shapes.py",
        "sweeps/study/test_study_[bdhlprst]*",
    ),
    "sweeps/verdict/item_noise.py": ("sweeps/verdict/test_verdict_items.py", "sweeps/verdict/*"),
    "sweeps/verdict/training_noise.py": (
        "sweeps/verdict/test_verdict_noise.py",
        "sweeps/verdict/*",
    ),
    "sweeps/verdict/task_quality.py": (
        "sweeps/verdict/test_verdict_task_quality.py",
        "sweeps/verdict/*",
    ),
    "sweeps/verdict/transfer.py": (
        "sweeps/verdict/test_verdict_task_quality.py",
        "sweeps/verdict/*",
    ),
    "sweeps/verdict/contrasts.py": ("sweeps/verdict/test_verdict_contrasts.py", "sweeps/verdict/*"),
    "sweeps/verdict/draws.py": ("sweeps/verdict/test_verdict_contrasts.py", "sweeps/verdict/*"),
    "sweeps/verdict/decision.py": ("sweeps/verdict/test_verdict_decision.py", "sweeps/verdict/*"),
    "sweeps/verdict/power.py": ("sweeps/verdict/test_verdict_decision.py", "sweeps/verdict/*"),
    "sweeps/verdict/numbers.py": (
        "sweeps/verdict/test_verdict_task_quality.py",
        "sweeps/verdict/*",
    ),
    "sweeps/verdict/*.py": (
        "sweeps/verdict/test_verdict_pinned.py",
        "sweeps/verdict/test_verdict_study.py",
        "sweeps/verdict/test_verdict_shapes.py",
        "sweeps/verdict/*",
        "analysis/test_report.py",
    ),
    "sweeps/promotion/full_schedule.py": (
        "sweeps/promotion/test_promotion_parts.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/gates.py": (
        "sweeps/promotion/test_promotion_gates.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/compare.py": (
        "sweeps/promotion/test_promotion_compare.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/calibration.py": (
        "sweeps/promotion/test_promotion_compare.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/prediction.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/scale_transfer.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/slopes.py": (
        "sweeps/promotion/test_promotion_prediction.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/promotion/promote.py": (
        "sweeps/promotion/test_promote.py",
        "sweeps/promotion/test_promotion_shapes.py",
        "sweeps/promotion/*",
    ),
    "sweeps/nanotron_files/write_back.py": (
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
        "sweeps/promotion/test_promote.py",
    ),
    "sweeps/nanotron_files/learning_rates.py": (
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
        "sweeps/promotion/test_promote.py",
    ),
    "sweeps/nanotron_files/chain.py": (
        "sweeps/promotion/test_promote.py",
        "sweeps/nanotron_files/*",
        "sweeps/promotion/test_promotion_golden.py",
    ),
    "sweeps/exporters/*.py": (
        "sweeps/exporters/test_exports_pinned.py",
        "sweeps/exporters/test_exporting.py",
        "sweeps/exporters/*",
    ),
    "analysis/records.py": ("analysis/test_frames.py", "test_thresholds.py", "analysis/test_re*"),
    "analysis/frames/*.py": (
        "analysis/test_frames.py",
        "test_thresholds.py",
        "analysis/test_[fr]*",
    ),
    "analysis/study_files.py": (
        "analysis/test_report.py",
        "test_thresholds.py",
        "analysis/test_[frw]*",
    ),
}
"""Glob of modules that decide results → globs of the tests under tests/ that hold them, the own first.

A module belongs to the first glob that it matches.
"""

SETTINGS = ("test_settings.py",)
"""Tests that compare constants and defaults: they reach no function, and hold each of these all the same."""

EQUIVALENT: Mapping[str, str] = {
    "ablations/training/loss.py:_compiled_parts: return torch.compile(_softmax_parts, dynamic=False) → "
    "return torch.compile(_softmax_parts, dynamic=True)": "speed: what the compiler specialises on",
    "sweeps/search/surrogates/trees.py:_TreesModel.predict: predicted: Floats = "
    "np.asarray(self.booster.predict(inputs, num_threads=1)) → predicted: Floats = "
    "np.asarray(self.booster.predict(inputs, num_threads=2))": "speed: threads of a prediction",
    "ablations/data/pipeline.py:_BATCH_DOCUMENTS: _BATCH_DOCUMENTS = 512 → _BATCH_DOCUMENTS = 1024": (
        "speed: documents tokenised in one call"
    ),
}
"""Changes that nothing but text, speed or the type checker could show, by their name, with the reason."""
