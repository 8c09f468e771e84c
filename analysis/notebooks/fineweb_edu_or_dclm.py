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
# alone, DCLM alone, and two mixes, and continued with 60/40. There is one run per mixture, without
# further seeds. How much of the table is due to the mixtures, and how much to chance?

# %%
import numpy as np
import pandas as pd
import plotly.graph_objects as go

import ablations
from analysis.figures import theme
from sweeps.verdict.published import published_table
from sweeps.verdict.training_noise import CHECKPOINT_INFLATION

table = published_table("smollm2_web_ratio")
names = [candidate.name for candidate in table.candidates]
scores = pd.DataFrame({task.task: task.values for task in table.tasks}, index=names).T
scores.loc["mean"] = scores.mean()
scores.round(2)

# %% [markdown]
# The mean of 60/40 is the highest. The noise of one run was not published. The best substitute is the
# spread of the scores of another 1B model over its last checkpoints (OLMo-ladder). It is a lower
# bound, because it does not include the effect of the seed on a whole run.

# %%
noise = pd.DataFrame(
    [(task.task, task.published_sd) for task in table.tasks],
    columns=["task", "SD of one run (points)"],
)
noise.round(2)

# %% [markdown]
# ## Chance alone
#
# Suppose that all four mixtures are equal, and draw the table many times with that noise. Its variance
# is doubled because checkpoints of one run share a trajectory
# (`sweeps.verdict.training_noise` gives the reason).
# How far ahead of FineWeb-Edu is then the best of the other three?

# %%
draw = np.random.default_rng(0)
sds = np.sqrt(CHECKPOINT_INFLATION) * np.array([task.published_sd for task in table.tasks])
equal = draw.normal(0.0, sds, size=(20_000, 4, len(sds))).mean(axis=2)
lead_by_chance = equal[:, 1:].max(axis=1) - equal[:, 0]
means = scores.loc["mean"]
lead = means["60/40"] - means["fineweb_edu"]
share = (lead_by_chance >= lead).mean()
print(f"60/40 leads by {lead:.2f} points; chance alone gives as much in {share:.0%} of draws")

# %%
figure = theme.blank(height=360)
figure.add_trace(
    go.Histogram(
        x=lead_by_chance,
        nbinsx=60,
        name="lead by chance",
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
verdict = ablations.verdict(table="smollm2_web_ratio")
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
# The table does show a trade-off: knowledge and reasoning (MMLU, ARC, OpenBookQA) are better with
# FineWeb-Edu, common sense (HellaSwag, CommonSenseQA) with DCLM. That is a reason to mix. It is not
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
