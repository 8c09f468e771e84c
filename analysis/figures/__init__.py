"""Figures: each is a pure function that makes a frame and one that draws the frame with plotly."""

from __future__ import annotations

from analysis.figures.answer import (
    MOST_ROWS,
    advantages,
    advantages_frame,
    answer_frame,
    answer_weights,
)
from analysis.figures.decisions import (
    cost_ledger,
    cost_ledger_frame,
    rank_transfer,
    rank_transfer_frame,
    signal_frame,
    task_signal,
)
from analysis.figures.effects import effect_matrix, effects_frame
from analysis.figures.learning import learning_curve, learning_frame, loss_curve, loss_frame
from analysis.figures.mixtures import mark_verdict, mixture_frame, thinned
from analysis.figures.parallel import parallel_coordinates
from analysis.figures.pareto import (
    domain_values,
    most_opposed,
    pareto_frame,
    pareto_front,
)
from analysis.figures.ratio import ratio_curve, ratio_seeds_frame
from analysis.figures.schedules import (
    MOST_MARKS,
    epochs_against_cap,
    epochs_frame,
    realised_against_asked,
    realised_frame,
    stage_timeline,
    timeline_frame,
)
from analysis.figures.ternary import ternary_map

__all__ = [
    "MOST_MARKS",
    "MOST_ROWS",
    "advantages",
    "advantages_frame",
    "answer_frame",
    "answer_weights",
    "cost_ledger",
    "cost_ledger_frame",
    "domain_values",
    "effect_matrix",
    "effects_frame",
    "epochs_against_cap",
    "epochs_frame",
    "learning_curve",
    "learning_frame",
    "loss_curve",
    "loss_frame",
    "mark_verdict",
    "mixture_frame",
    "most_opposed",
    "parallel_coordinates",
    "pareto_frame",
    "pareto_front",
    "rank_transfer",
    "rank_transfer_frame",
    "ratio_curve",
    "ratio_seeds_frame",
    "realised_against_asked",
    "realised_frame",
    "signal_frame",
    "stage_timeline",
    "task_signal",
    "ternary_map",
    "thinned",
    "timeline_frame",
]
