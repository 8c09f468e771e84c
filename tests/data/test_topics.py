"""Topics of a source: found, named, written as sources over one store, and read by a run's config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ablations.config.schema import load
from ablations.data.prepare import prepare
from ablations.data.quality.artifact import open_artifact
from ablations.data.quality.topics import TopicModel, agreement, fit_topics
from ablations.data.store import TokenStore
from ablations.errors import DataError
from ablations.plan import make_plan
from tests.conftest import Ablate
from tests.test_plan import composed_plain

THEMES = {
    "planets": "orbit planet moon star telescope gravity comet rocket",
    "cooking": "oven butter flour sugar recipe onion garlic sauce",
    "music": "violin guitar melody rhythm chorus piano singer orchestra",
}


def themed(count: int = 40, *, seed: int = 0) -> list[tuple[str, str]]:
    """(theme, text) of documents that share filler words and differ in their theme's."""
    rng = np.random.default_rng(seed)
    filler = [
        "people",
        "often",
        "think",
        "about",
        "many",
        "different",
        "things",
        "every",
        "single",
        "day",
    ]
    found = []
    for number in range(count):
        for theme, words in THEMES.items():
            parts = [*rng.choice(words.split(), 12), *rng.choice(filler, 8)]
            rng.shuffle(parts)
            found.append((theme, f"{' '.join(parts)} {number}."))
    return found


def test_topics_are_the_themes_and_are_named_by_their_words() -> None:
    themes, texts = zip(*themed(), strict=True)
    model = fit_topics(texts, 3, seed=0)
    assert agreement(themes, model.scores(texts)) > 0.95
    for name in model.names():
        words = name.split("_")
        assert sum(all(w in theme.split() for w in words) for theme in THEMES.values()) == 1
    # A document without a known word has a topic too.
    assert model.scores(["", "zzz 123"]).max() < 3


def test_a_model_is_read_back_as_it_was(tmp_path: Path) -> None:
    texts = [text for _, text in themed()]
    model = fit_topics(texts, 3, seed=0)
    model.save(tmp_path)
    assert (TopicModel.read(tmp_path).scores(texts) == model.scores(texts)).all()
    assert TopicModel.read(tmp_path).names() == model.names()


@pytest.mark.parametrize(
    ("texts", "into", "message"),
    [
        (["one two"] * 15, 2, "too many topics"),
        (["a b c"] * 30, 2, "no words"),
        ([f"alpha beta{'x' * (n % 2)}" for n in range(90)], 8, "no words|than the words"),
    ],
)
def test_topics_that_cannot_be_found_are_refused(texts: list[str], into: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_topics(texts, into, seed=0)


def test_a_split_source_is_prepared_once_and_mixed_by_topic(
    workspace: Path, ablate: Ablate
) -> None:
    rows = [{"id": str(n), "text": text} for n, (_, text) in enumerate(themed(80))]
    (workspace / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace / "mine/source").mkdir(parents=True)
    source = {
        "domain": "english",
        "tokens_available": 100_000,
        "licence": "MIT",
        "heldout_share": 0.2,
        "origin": {"kind": "files", "paths": [str(workspace / "web.jsonl")]},
    }
    (workspace / "mine/source/web.yaml").write_text(yaml.safe_dump(source))
    call = ("split", "--config-dir", "mine", "source=web", "into=3", "out=topics")
    answer = ablate(*call)
    assert answer.code == 0, answer.err
    assert "finds 3 topics" in answer.out
    files = sorted((workspace / "topics/source").glob("web_*.yaml"))
    names = [path.stem for path in files if path.stem != "web_topics"]
    assert len(names) == 3
    plain = composed_plain("data_dir=data")
    plain["mixture"] = {**plain["mixture"], "weights": dict.fromkeys(names, 1 / 3)}
    config = load(plain, [workspace / "topics"])
    assert set(config.whole_sources) >= {"web_topics"}
    stated = sum(config.source[name].tokens_available for name in names)
    assert stated == pytest.approx(100_000, abs=3)
    prepare({"web_topics": config.source["web_topics"]}, config.tokenizer, workspace / "data")
    plan = make_plan(config)
    assert plan.problems == ()
    assert all(plan.prepared.values())
    stores = [TokenStore.open(config.store_folder(name)) for name in names]
    whole = TokenStore.open(workspace / "data/synthetic_bpe/web_topics")
    assert sum(store.num_tokens for store in stores) == whole.num_tokens
    labels = open_artifact(workspace / "topics/classifiers/web_topics").scores(
        [row["text"] for row in rows]
    )
    assert agreement([theme for theme, _ in themed(80)], labels) > 0.95
    assert (
        ablate(*call).code == 2
    )  # topics are numbered anew: an earlier split is not mixed with it
    again = ablate("split", "--config-dir", "topics", "source=web_topics", "out=twice")
    assert again.code == 2
    assert "has scores or buckets already" in again.err
