# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # RegMix's public runs, refitted
#
# RegMix (Liu et al., arXiv 2407.01492) published 512 runs of 1M parameters over 17 domains of the
# Pile, with 13 validation losses each, and 256 more mixtures at 1M and at 60M. They show how well a
# surrogate that was fitted to small runs predicts a larger size.
#
# The tables are not included: set `ABLATIONS_REGMIX` to the folder that contains your copy of
# `train_mixture_1m.csv`, `train_pile_loss_1m.csv` and the `test_…` files (sail-sg/regmix, MIT).

# %%
import os
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import theme
from sweeps.search.surrogates import Surrogate, family
from sweeps.search.surrogates.leaderboard import rank_correlation

folder = Path(os.environ["ABLATIONS_REGMIX"])


def mixtures(name: str) -> pd.DataFrame:
    """Read the weights and renormalise them: the published rows are rounded and sum to 0.996 to 1.003."""
    table = pd.read_csv(folder / name, index_col="index")
    table.columns = [column.removeprefix("train_the_pile_") for column in table.columns]
    return table.div(table.sum(axis=1), axis=0)


def losses(name: str) -> pd.DataFrame:
    """Read the validation losses, one column per domain."""
    table = pd.read_csv(folder / name, index_col="index")
    return table.rename(
        columns=lambda c: c.removeprefix("metric/the_pile_").removesuffix("_val_loss")
    )


seen, seen_losses = mixtures("train_mixture_1m.csv"), losses("train_pile_loss_1m.csv")
test = {size: mixtures(f"test_mixture_{size}.csv") for size in ("1m", "60m")}
truth = {size: losses(f"test_pile_loss_{size}.csv") for size in ("1m", "60m")}
print(f"{len(seen)} runs to fit on, {len(test['1m'])} to test on, {seen.shape[1]} domains")

# %% [markdown]
# ## Fit on a few runs, rank mixtures that were not run
#
# 128 of the 512 runs, drawn once. A high correlation does not imply a low regret, so the table shows
# both. Regret is the distance of the mixture that the model ranks first from the best one, as a share
# of the distance of the mean from the best.

# %%
FAMILIES = ("linear", "ridge-sqrt", "scheffe", "gp")
picked = np.random.default_rng(0).permutation(len(seen))[:128]
x, y = seen.to_numpy()[picked], seen_losses.to_numpy()[picked]
rows, predicted = [], {}
for name in FAMILIES:
    model = Surrogate(family(name)).fit(x, y)
    for size in ("1m", "60m"):
        guess = model.predict(test[size].to_numpy())
        predicted[name, size] = guess
        actual = truth[size].to_numpy()
        ranks = [rank_correlation(guess[:, t], actual[:, t]) for t in range(actual.shape[1])]
        mean = actual.mean(axis=1)
        favourite = mean[guess.mean(axis=1).argmin()]
        regret = (favourite - mean.min()) / (mean.mean() - mean.min())
        rows.append((name, size, np.mean(ranks), regret))
result = pd.DataFrame(rows, columns=["surrogate", "size", "mean rank correlation", "regret"])
result.pivot(index="surrogate", columns="size").round(3)

# %% [markdown]
# ## Are the ranks at 1M and at 60M the same?
#
# The 256 test mixtures were run at both sizes. Their agreement limits any surrogate that is fitted at
# 1M and used at 60M.

# %%
best = result[result["size"] == "60m"].sort_values("mean rank correlation").iloc[-1]["surrogate"]
by_size = {size: truth[size].mean(axis=1).to_dict() for size in truth}
figures.rank_transfer(
    figures.rank_transfer_frame(by_size["1m"], by_size["60m"], minimised=True),
    small="1M parameters",
    large="60M parameters",
    agreement=f"Mean loss of {len(by_size['1m'])} mixtures; {best} is the best surrogate.",
)

# %% [markdown]
# ## Predicted and measured loss at 60M

# %%
actual, guess = truth["60m"].mean(axis=1), predicted[best, "60m"].mean(axis=1)
figure = theme.blank(height=420, legend=False)
figure.add_scatter(
    x=guess,
    y=actual,
    mode="markers",
    marker={"color": theme.PALETTE[0], "size": 7},
    hovertext=[f"mixture {n}" for n in actual.index],
)
figure.layout.xaxis = theme.axis(f"predicted by {best}, fitted at 1M", "nats per token")
figure.layout.yaxis = theme.axis("mean validation loss at 60M", "nats per token")
figure
