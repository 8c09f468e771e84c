# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # FineWeb-Edu or DCLM? The published table, with its noise
#
# SmolLM2 (arXiv 2502.02737) trained four 1.7B models on 350B tokens of English web each: FineWeb-Edu
# alone, DCLM alone, and two mixes, and went on with 60/40. One run a mixture, no seeds. How much of
# the table is the mixtures, and how much is luck?

# %%
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import theme
from sweeps.verdict.decide import decide
from sweeps.verdict.published import published_table
from sweeps.verdict.training_noise import CHECKPOINT_INFLATION

table = published_table("smollm2_web_ratio")
names = [candidate.name for candidate in table.candidates]
scores = pd.DataFrame({task.task: task.values for task in table.tasks}, index=names).T
scores.loc["mean"] = scores.mean()
scores.round(2)

# %% [markdown]
# The mean of 60/40 is the highest. The noise of one run was not published; the best stand-in is how
# much the scores of another 1B model move over its last checkpoints (OLMo-ladder). That is a floor: it
# cannot show what a whole run's seed does.

# %%
noise = pd.DataFrame(
    [(task.task, task.published_sd) for task in table.tasks],
    columns=["task", "SD of one run (points)"],
)
noise.round(2)

# %% [markdown]
# ## Luck alone
#
# Suppose that all four mixtures were equal, and draw the table again and again with that noise, its
# variance doubled because checkpoints of one run share a trajectory
# (`sweeps.verdict.training_noise` gives the reason).
# How far ahead of FineWeb-Edu is the best of the other three, then?

# %%
draw = np.random.default_rng(0)
sds = np.sqrt(CHECKPOINT_INFLATION) * np.array([task.published_sd for task in table.tasks])
lucky = draw.normal(0.0, sds, size=(20_000, 4, len(sds))).mean(axis=2)
lead_by_luck = lucky[:, 1:].max(axis=1) - lucky[:, 0]
means = scores.loc["mean"]
lead = means["60/40"] - means["fineweb_edu"]
share = (lead_by_luck >= lead).mean()
print(f"60/40 leads by {lead:.2f} points; luck alone gives as much in {share:.0%} of draws")

# %%
figure = theme.blank(height=360)
figure.add_trace(
    go.Histogram(
        x=lead_by_luck,
        nbinsx=60,
        name="lead by luck",
        histnorm="probability",
        marker={"color": theme.PALETTE[5], "line": {"color": "white", "width": 0.5}},
    )
)
figure.add_vline(
    x=lead,
    line={"color": theme.PALETTE[1], "dash": "dash"},
    annotation_text=f"published lead {lead:.2f}",
)
figure.layout.xaxis = theme.axis(
    "lead of the best of three over a fourth, all equal", "accuracy points"
)
figure.layout.yaxis = theme.axis("share of draws", "")
figure

# %% [markdown]
# ## The verdict
#
# The same rule as for our own studies: differences with their noise, corrected for the number of
# candidates.

# %%
verdict = decide(table)
print(verdict.sentence)
print("What would settle it:", verdict.settle_text)
for caveat in verdict.caveats:
    print("-", caveat)

# %%
pd.DataFrame(
    [
        (
            row.name,
            row.mean,
            row.advantage.value if row.advantage else None,
            row.advantage.low if row.advantage else None,
            row.advantage.high if row.advantage else None,
            row.finalist,
        )
        for row in verdict.candidates
    ],
    columns=["mixture", "mean", f"over {verdict.reference}", "low", "high", "may be best"],
).round(4)

# %% [markdown]
# ## A trade-off, task by task
#
# What the table does show is opposite slopes: knowledge and reasoning (MMLU, ARC, OpenBookQA) lean to
# FineWeb-Edu, common sense (HellaSwag, CommonSenseQA) to DCLM. That is a reason to mix; it is not
# evidence for this ratio over its neighbours.

# %%
edge = (scores["fineweb_edu"] - scores["dclm"]).drop("mean").sort_values()
bars = theme.blank(height=340, legend=False)
bars.add_bar(
    x=edge,
    y=edge.index,
    orientation="h",
    error_x={
        "type": "data",
        "array": 1.96
        * np.sqrt(2)
        * pd.Series(sds, index=[task.task for task in table.tasks])[edge.index],
    },
    marker={"color": [theme.PALETTE[0] if v > 0 else theme.PALETTE[1] for v in edge]},
)
bars.layout.xaxis = theme.axis("FineWeb-Edu minus DCLM, with 95% of the noise", "points")
bars.layout.yaxis = theme.axis("task", "")
bars
