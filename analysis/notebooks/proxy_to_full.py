# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From the proxy to the full run: is the ranking the same?
#
# A decision on small models is only useful if it is right for the large one. Two questions:
#
# 1. Do mixtures keep their order from one proxy size to the next?
# 2. How much of the disagreement is noise of the proxies, not a change of order?
#
# The records here are made up from a known truth (`analysis.synthetic`), so that the answer is known.
# Set `ABLATIONS_RUNS` and `ABLATIONS_STUDY` to read a study that ran mixtures at two sizes.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import theme
from analysis.frames import Frames
from analysis.report.charts import agreement
from analysis.synthetic import SyntheticStudy, write_study
from sweeps.verdict.transfer import transfer

SIZES = (64, 128)


def made_up(folder: Path, noise: float) -> dict[int, pd.Series]:
    """Return size → score of every mixture, one run each, from studies that differ in width and noise."""
    found = {}
    for size in SIZES:
        name = f"width_{size}_noise_{noise:g}"
        shape = SyntheticStudy(
            name=name,
            sources=("web", "chat", "math"),
            trials=24,
            hidden_size=size,
            noise=noise,
            items=0,
            seeds=1,
            confirmed=0,
            luck=size,
        )
        write_study(folder, shape)
        runs = Frames.read(folder, name).runs
        found[size] = runs.set_index(runs["trial"].astype("str"))["score"]
    return found


folder = Path(tempfile.mkdtemp())
scores = made_up(folder, noise=0.01)

# %% [markdown]
# ## Rank against rank
#
# Each mark is a mixture that was run at both sizes. The interval comes from resampling mixtures.

# %%
small, large = (scores[size].to_dict() for size in SIZES)
agreed = transfer(small, large, small=f"width {SIZES[0]}", large=f"width {SIZES[1]}")
figures.rank_transfer(
    figures.rank_transfer_frame(small, large, minimised=True),
    small=agreed.small,
    large=agreed.large,
    agreement=agreement(agreed),
)

# %% [markdown]
# ## How much of the disagreement is noise?
#
# The truth of these studies gives the mixtures the same ranks at both sizes. Only the noise of single
# runs lowers the correlation: the larger the noise, the worse a perfect proxy looks. So measure the
# seed noise of a proxy before you reject the proxy.

# %%
rows = []
for noise in (0.0, 0.01, 0.03, 0.06, 0.1):
    one, two = (made_up(folder, noise)[size].to_dict() for size in SIZES)
    found = transfer(one, two, small="small", large="large", draws=200)
    spread = float(np.std(list(one.values())))
    rows.append((noise, noise / spread, found.rank_correlation, found.decision_accuracy))
table = pd.DataFrame(
    rows, columns=["noise (bits per byte)", "noise / spread", "rank correlation", "pairs alike"]
)
table.round(3)

# %%
figure = theme.blank(height=360)
for place, column in enumerate(("rank correlation", "pairs alike")):
    figure.add_scatter(
        x=table["noise / spread"],
        y=table[column],
        mode="lines+markers",
        name=column,
        line={"color": theme.PALETTE[place], "dash": theme.DASHES[place]},
        marker={"symbol": theme.SYMBOLS[place], "size": 9},
    )
figure.layout.xaxis = theme.axis("seed noise / spread of the mixtures", "ratio")
figure.layout.yaxis = theme.axis("agreement of the two sizes", "1 = perfect", range=[0, 1.05])
figure

# %% [markdown]
# ## Your own study
#
# `ablate verdict` finds proxies of several sizes in a study and prints how well the ranks at the
# smaller one agree with those at the larger one; a promotion's gate uses the same numbers.

# %%
runs_dir, study = os.environ.get("ABLATIONS_RUNS"), os.environ.get("ABLATIONS_STUDY")
if runs_dir and study:
    from analysis.study_files import load_verdict

    frames = Frames.read(Path(runs_dir), study)
    verdict = load_verdict(Path(runs_dir), study, frames.files, "auto").verdict
    for found in verdict.transfer if verdict else ():
        print(found)
    if not (verdict and verdict.transfer):
        print("This study was run at one size.")
