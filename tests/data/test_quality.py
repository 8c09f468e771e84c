"""Classifiers of quality: they find it inside each source, or are refused with the figure."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.buckets import BucketsSpec
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.cutting import read_scores
from ablations.data.prepare import prepare
from ablations.data.quality.annotations import (
    Annotation,
    read_annotations,
    sample_documents,
    split_annotations,
)
from ablations.data.quality.artifact import open_artifact, read_artifact, write_artifact
from ablations.data.quality.classifiers import Kind, train_classifier
from ablations.data.quality.skill import Evaluation, evaluate
from ablations.data.readers import Place
from ablations.data.store import TokenStore
from ablations.data.synthetic import Skill, documents
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import ConfigError, DamagedError, DataError
from ablations.files import read_json, read_json_lines
from tests.conftest import Ablate

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
SKILLS: tuple[Skill, ...] = ("facts", "dialogue")
HERE = Place(downloads=Path("nowhere"))


def annotated(count: int = 240, *, seed: int = 0) -> list[Annotation]:
    """Documents of two sources, half of each with its words in random order and a low score."""
    rng = random.Random(seed)
    found = []
    for skill in SKILLS:
        for number, text in enumerate(documents(skill, count, seed=seed)):
            words = text.text.split()
            bad = number % 2
            if bad:
                rng.shuffle(words)
            score = float(rng.choice((0, 1) if bad else (4, 5)))
            language = "en" if number % 3 else "nl"
            found.append(
                Annotation(
                    text=f"{' '.join(words)} {number}",
                    score=score,
                    source=skill,
                    language=language,
                )
            )
    return found


def shuffled(annotations: list[Annotation], seed: int = 0) -> list[Annotation]:
    scores = [a.score for a in annotations]
    random.Random(seed).shuffle(scores)
    return [replace(a, score=score) for a, score in zip(annotations, scores, strict=True)]


def trained(annotations: list[Annotation], kind: Kind = "fasttext") -> Evaluation:
    training, heldout = split_annotations(annotations, 0.4)
    classifier = train_classifier(kind, training, seed=0)
    scores = classifier.scores([a.text for a in heldout])
    return evaluate(heldout, scores, threshold=3.0, seed=0)


@pytest.mark.parametrize("kind", ["fasttext", "linear"])
def test_a_classifier_orders_the_documents_of_each_source(kind: Kind) -> None:
    found = trained(annotated(), kind)
    assert found.usable
    assert found.within_spearman > 0.5
    for source in found.sources:
        assert source.spearman is not None
        assert source.threshold_f1 is not None
        assert source.spearman > 0.4
        assert source.threshold_f1 > 0.8
        assert sum(map(sum, source.confusion)) == source.documents
    assert {row.language for row in found.languages} == {"en", "nl"}
    assert all(abs(row.bias) < 1.0 for row in found.languages)


@pytest.mark.parametrize("seed", range(4))
def test_annotations_in_random_order_are_refused_with_the_figure(seed: int) -> None:
    found = trained(shuffled(annotated(seed=seed), seed))
    assert not found.usable
    assert found.within_spearman < found.shuffled_spearman
    assert f"rank correlation {found.within_spearman:.2f} within sources" in found.sentence


def test_a_classifier_that_only_distinguishes_sources_is_named_as_such() -> None:
    rng = random.Random(0)
    levels = {"facts": (4, 5), "dialogue": (0, 1)}
    mixed = [replace(a, score=float(rng.choice(levels[a.source]))) for a in annotated()]
    found = trained(mixed)
    assert not found.usable
    assert found.pooled_spearman is not None
    assert found.pooled_spearman > 0.6
    assert found.sentence.startswith("only distinguishes sources")


def test_sources_of_one_score_each_have_no_skill() -> None:
    annotations = [replace(a, score=5.0 if a.source == "facts" else 0.0) for a in annotated()]
    found = trained(annotations)
    assert found.within_spearman == 0.0
    assert not found.usable


def test_perfect_and_reversed_scores_are_at_the_ends() -> None:
    annotations = annotated(60)
    truth = np.array([a.score for a in annotations])
    best = evaluate(annotations, truth, threshold=3.0, seed=0)
    worst = evaluate(annotations, 5.0 - truth, threshold=3.0, seed=0)
    assert best.within_spearman == pytest.approx(1.0)
    assert worst.within_spearman == pytest.approx(-1.0)
    assert best.sources[0].macro_f1 == best.sources[0].threshold_f1 == 1.0
    assert (best.usable, worst.usable) == (True, False)


def kept(folder: Path, annotations: list[Annotation], kind: Kind = "fasttext") -> Path:
    """Train, measure and write a classifier."""
    training, heldout = split_annotations(annotations, 0.4)
    classifier = train_classifier(kind, training, seed=0)
    evaluation = evaluate(
        heldout, classifier.scores([a.text for a in heldout]), threshold=3.0, seed=0
    )
    file = folder.parent / "annotations.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    write_artifact(
        folder,
        classifier,
        kind=kind,
        model=None,
        annotations=file,
        trained_on=len(training),
        evaluation=evaluation.plain(),
    )
    return folder


@pytest.mark.parametrize("kind", ["fasttext", "linear"])
def test_a_classifier_is_read_back_as_it_was(tmp_path: Path, kind: Kind) -> None:
    annotations = annotated()
    training, _ = split_annotations(annotations, 0.4)
    texts = [a.text for a in annotations] + ["", "\n\n", "ünïcode ✓ words nobody wrote"]
    folder = kept(tmp_path / "c", annotations, kind)
    expected = train_classifier(kind, training, seed=0).scores(texts)
    assert open_artifact(folder).scores(texts) == pytest.approx(expected)
    assert ((expected >= 0.0) & (expected <= 5.0)).all()
    assert (
        read_artifact(folder).version
        == read_artifact(kept(tmp_path / "d", annotations, kind)).version
    )


def test_a_damaged_classifier_is_refused(tmp_path: Path) -> None:
    folder = kept(tmp_path / "c", annotated())
    file = folder / "model.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"model\.bin: missing, or not the file"):
        read_artifact(folder)
    with pytest.raises(DataError, match="not a classifier"):
        read_artifact(tmp_path / "nowhere")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "web.jsonl"
    rows = [{"id": str(n), "text": a.text} for n, a in enumerate(annotated(150, seed=5))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored_source(texts: Path, classifier: Path, **more: Any) -> SourceSpec:
    values: dict[str, Any] = {
        "domain": "x",
        "tokens_available": 1000,
        "licence": "MIT",
        "origin": FilesOrigin(kind="files", paths=(str(texts),)),
        "classifier": str(classifier),
        "heldout_share": 0.2,
        **more,
    }
    return SourceSpec(**values)


def test_prepare_scores_each_document_with_the_classifier(texts: Path, tmp_path: Path) -> None:
    folder = kept(tmp_path / "c", annotated())
    spec = scored_source(texts, folder, buckets=BucketsSpec(edges=(2.5,)), shards=2)
    (made,) = prepare({"web": spec}, TOKENIZER, tmp_path / "data")
    every = [row["text"] for row in read_json_lines(texts)]
    scores = open_artifact(folder).scores(every)
    held = {row["text"]: row["score"] for row in read_json_lines(made.folder / "heldout.jsonl")}
    trained_on = [s for t, s in zip(every, scores.tolist(), strict=True) if t not in held]
    for bucket, expected in ((0, [s for s in trained_on if s < 2.5]), (1, None)):
        store = TokenStore.open(made.folder / f"b{bucket}")
        found = [read_scores(store.folder / "train" / file.name) for file in store.manifest.files]
        wanted = expected or [s for s in trained_on if s >= 2.5]
        assert np.sort(np.concatenate(found)) == pytest.approx(sorted(wanted), abs=1e-5)
    assert made.manifest is not None
    assert made.manifest.versions["classifier"] == read_artifact(folder).version
    (again,) = prepare({"web": spec}, TOKENIZER, tmp_path / "data")
    assert again.skipped


def test_a_threshold_drops_documents_and_counts_them(texts: Path, tmp_path: Path) -> None:
    folder = kept(tmp_path / "c", annotated())
    (made,) = prepare(
        {"web": scored_source(texts, folder, min_score=2.5)}, TOKENIZER, tmp_path / "data"
    )
    assert made.manifest is not None
    scores = open_artifact(folder).scores([row["text"] for row in read_json_lines(texts)])
    assert made.manifest.dropped == {"score below 2.5": int(np.count_nonzero(scores < 2.5))}


def test_prepare_refuses_a_classifier_without_skill(texts: Path, tmp_path: Path) -> None:
    folder = kept(tmp_path / "c", shuffled(annotated()))
    spec = scored_source(texts, folder, min_score=2.5)
    figure = f"{read_artifact(folder).evaluation['within_spearman']:.2f} within sources"
    with pytest.raises(DataError, match="refused as a filter") as error:
        prepare({"web": spec}, TOKENIZER, tmp_path / "data")
    assert figure in str(error.value)


def test_a_store_of_another_classifier_is_refused(texts: Path, tmp_path: Path) -> None:
    spec = scored_source(texts, tmp_path / "c", min_score=2.5)
    kept(tmp_path / "c", annotated())
    prepare({"web": spec}, TOKENIZER, tmp_path / "data")
    kept(tmp_path / "c", annotated(seed=1))
    with pytest.raises(DataError, match="scored by another version of the classifier"):
        prepare({"web": spec}, TOKENIZER, tmp_path / "data")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "score": 6}, "not a score"),
        ({"text": "a", "score": "good"}, "not a score"),
        ({"text": "a", "score": True}, "not a score"),
        ({"text": "a", "score": float("nan")}, "not a score"),
        ({"text": 7, "score": 1}, "not a text"),
        ({"score": 1}, "names no document"),
        ({"id": "1", "score": 1}, "needed to find the document"),
        ({"id": "1", "source": "wob", "score": 1}, "needed to find the document"),
        ({"id": "no", "source": "web", "score": 1}, "ids that 'web' does not have"),
        ({"text": "a", "score": None}, "no row has a score"),
    ],
)
def test_rows_that_are_no_annotations_are_refused(
    tmp_path: Path, texts: Path, row: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    spec = scored_source(texts, tmp_path / "c", min_score=1.0)
    with pytest.raises(DataError, match=message):
        read_annotations(path, {"web": spec}, HERE)


def test_documents_are_found_by_their_ids(tmp_path: Path, texts: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"id": str(n), "source": "web", "score": n % 6} for n in (7, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = scored_source(texts, tmp_path / "c", min_score=1.0)
    by_id = {row["id"]: row["text"] for row in read_json_lines(texts)}
    found = read_annotations(path, {"web": spec}, HERE)
    assert [(a.text, a.score) for a in found] == [(by_id["7"], 1.0), (by_id["3"], 3.0)]


def test_a_draw_of_documents_does_not_depend_on_their_order(tmp_path: Path, texts: Path) -> None:
    spec = scored_source(texts, tmp_path / "c", min_score=1.0)
    drawn = sample_documents("web", spec, HERE, count=20, seed=3)
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join(reversed(lines)))
    again = sample_documents("web", spec, HERE, count=20, seed=3)
    other = sample_documents("web", spec, HERE, count=20, seed=4)
    assert {t.id for t in drawn} == {t.id for t in again} != {t.id for t in other}
    assert len(drawn) == 20


def write_rated(path: Path, annotations: list[Annotation]) -> Path:
    path.write_text("".join(json.dumps(vars(a)) + "\n" for a in annotations))
    return path


def test_the_command_trains_and_refuses(
    tmp_path: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write_rated(tmp_path / "good.jsonl", annotated())
    answer = ablate("classify", f"annotations={good}", "heldout_share=0.4", "out=c/good")
    assert answer.code == 0
    assert "orders the documents of one source" in answer.out
    assert read_json(tmp_path / "c/good/classifier.json")["evaluation"]["usable"]
    bad = write_rated(tmp_path / "bad.jsonl", shuffled(annotated()))
    answer = ablate("classify", f"annotations={bad}", "heldout_share=0.4", "out=c/bad")
    assert answer.code == 1
    assert "it is refused as a filter" in answer.out
    few = write_rated(tmp_path / "few.jsonl", annotated(10))
    answer = ablate("classify", f"annotations={few}")
    assert answer.code == 2
    assert "too few annotations" in answer.err


def test_the_command_draws_documents_and_keeps_ratings(
    tmp_path: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ("annotate", "sources=[synthetic_facts]", "documents=5", "out=a/r.jsonl")
    assert ablate(*call).code == 0
    rows = list(read_json_lines(tmp_path / "a/r.jsonl"))
    assert [row["source"] for row in rows] == ["synthetic_facts"] * 5
    rated = "".join(json.dumps({**row, "score": n}) + "\n" for n, row in enumerate(rows))
    (tmp_path / "a/r.jsonl").write_text(rated)
    answer = ablate(*call)
    assert answer.code == 0
    assert "5 of 5 documents have a score" in answer.out
    assert (tmp_path / "a/r.jsonl").read_text() == rated
    assert ablate("annotate", "out=b.jsonl").code == 2


def test_any_sequence_classifier_is_opened_and_kept(tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "red": 2, "wears": 3}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(tmp_path / "m")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=6,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "m")
    classifier = train_classifier("transformers", [], seed=0, model=str(tmp_path / "m"))
    scores = classifier.scores(["red wears red", "other"])
    assert ((scores > 0.0) & (scores < 5.0)).all()
    (tmp_path / "k").mkdir()
    classifier.save(tmp_path / "k")
    again = train_classifier("transformers", [], seed=0, model=str(tmp_path / "k/model"))
    assert again.scores(["red wears red", "other"]) == pytest.approx(scores)
    with pytest.raises(DataError, match="no sequence classifier"):
        train_classifier("transformers", [], seed=0, model=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score_column": "s", "min_score": 1.0}, "give one of them"),
        ({"score_shares": {1: 0.5}}, "use buckets and select.keep"),
        ({}, "give both or neither"),
    ],
)
def test_a_source_has_one_kind_of_score(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        scored_source(tmp_path / "x.jsonl", tmp_path / "c", **values)
