"""From files to scores: pictures are prepared, trained on and scored; only those that matter show a gain."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from ablations.evaluation.encoding import Encoder
from ablations.evaluation.model_folder import load_tokenizer
from ablations.evaluation.picture_prompts import expanded, picture_prompts, tokens_of_model
from ablations.evaluation.results import MetricScore
from ablations.evaluation.scoring import ScoringPlace, score_folder
from ablations.evaluation.specs import EvaluationSpec
from ablations.training.train_job import TrainJob
from ablations.training.trainers import trainer_of
from ablations.training.vlm.picture_inputs import PictureBlock
from tests.oracles.chats import write_base_model
from tests.oracles.drawn import picture_source, prepare_pictures, write_jsonl
from tests.oracles.vision_rows import COLOURS, make_vision_job, square

STEPS = 140


def write_questions(folder: Path, *, matters: bool) -> Path:
    """Write questions about coloured squares, whose answer is the colour or has nothing to do with it."""
    folder.mkdir(parents=True)
    draw, rows = random.Random(0), []
    for number in range(400):
        colour = list(COLOURS)[number % 3]
        image = Image.fromarray(square(colour, number).transpose(1, 2, 0))
        image.save(folder / f"{number}.png")
        answer = colour if matters else draw.choice(["seven", "eight"])
        asked = "which?" if matters else "how many?"
        rows.append({"images": [f"{number}.png"], "question": asked, "answer": answer})
    return write_jsonl(folder / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """Train one model on both kinds of questions."""
    root = tmp_path_factory.mktemp("seeing")
    sources = {
        name: picture_source(write_questions(root / "raw" / name, matters=name == "colour"))
        for name in ("colour", "chatter")
    }
    stores = prepare_pictures(root, sources)
    base = write_base_model(root / "base")
    job = make_vision_job(
        root / "run",
        stores,
        base,
        weights={"colour": 0.7, "chatter": 0.3},
        steps=STEPS,
        batch_size=16,
    )
    outcome = trainer_of(job.method).train(job, None)
    assert outcome.status == "done", outcome.reason
    return job


def scores_of(job: TrainJob, out: Path) -> dict[str, dict[str, MetricScore]]:
    place = ScoringPlace(stores=job.stores)
    found = score_folder(job.checkpoints_dir / str(STEPS), EvaluationSpec(), out, place=place)
    return {name: dict(task.metrics) for name, task in found.tasks.items()}


def errors_above_zero(metric: MetricScore) -> float:
    assert metric.value is not None
    assert metric.stderr
    return metric.value / metric.stderr


@pytest.mark.slow
def test_the_gains_tell_pictures_that_matter_from_those_that_do_not(
    trained: TrainJob, tmp_path: Path
) -> None:
    found = scores_of(trained, tmp_path)
    colour, chatter = found["heldout_colour"], found["heldout_chatter"]
    assert errors_above_zero(colour["gain"]) > 3
    assert errors_above_zero(colour["shuffled_gain"]) > 3
    assert (colour["exact_match"].value or 0.0) > 1.5 * (colour["exact_match"].chance or 1.0)
    assert abs(errors_above_zero(chatter["shuffled_gain"])) < 3
    assert colour["exact_match"].chance == pytest.approx(1 / 3, abs=0.1)
    assert chatter["exact_match"].chance == pytest.approx(1 / 2, abs=0.15)


@pytest.mark.slow
def test_prompts_are_read_as_the_training_read_its_rows(trained: TrainJob) -> None:
    """The tokens of a prompt with its pictures are those that the training makes of the same text."""
    folder = trained.checkpoints_dir / str(STEPS)
    store = trained.stores["colour"]
    items = [json.loads(line) for line in (store / "heldout.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(folder)
    model = json.loads((folder / "config.json").read_text())
    tokens = tokens_of_model(folder, tokenizer, model["image_token_id"])
    encoder = Encoder(tokenizer, separator=0)
    assert trained.tokenizer is not None
    assert trained.method.vision is not None
    count = trained.method.vision.tokens_per_picture
    block = PictureBlock.of(trained.tokenizer, count)
    for prompt, item in zip(
        picture_prompts(items, encoder, tokens, "", "{query}"), items, strict=True
    ):
        row = tokenizer(item["query"] + item["choices"][0], add_special_tokens=False)["input_ids"]
        ids, _ = block.expand(row, [True] * len(row))
        features = [[tokens.picture_id] * count for _ in prompt.pictures]
        assert [*expanded(prompt.context, tokens, features), *prompt.answer] == ids.tolist()
