"""Training with pictures through the command line: plan, run, a study with a shared warm-up, refusals."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

from ablations.config.schema import conf_dir
from ablations.files import read_json, read_json_lines
from ablations.record.run_record import RunRecord, list_runs
from ablations.trunks import trunks_dir
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.oracles.vision_rows import COLOURS, SIDE, TEMPLATE

EYE = {
    "image_size": SIDE,
    "patch_size": 4,
    "scale_factor": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VLM = (
    *("experiment=synthetic", "method=own_vlm", "tokenizer=own_vision", "mixture=own_pictures"),
    *("schedule=own_rows", "training=demo_vision", "evaluation=own_seen", "search=none"),
    *("training.batch_size=4", "training.peak_lr=1e-2", "model.hidden_size=32"),
    *("model.intermediate_size=64", "execution.threads=1", "progress=false"),
    *("--config-dir", "own"),
)
CHOSEN = "mixture.weights={squares:0.5,synthetic_facts:0.5},{squares:0.9,synthetic_facts:0.1}"


@pytest.fixture
def own(workspace: Path, ablate: Ablate) -> Path:
    """The workspace with a source of coloured squares in ``own/``, prepared, and a trained language model."""
    conf, raw = workspace / "own", workspace / "raw"
    raw.mkdir()
    random.seed(0)
    rows = []
    for number in range(80):
        colour = list(COLOURS)[number % 3]
        picture = Image.new("RGB", (SIDE, SIDE), (number, 5, 5))
        left, top = random.randrange(8), random.randrange(8)
        ImageDraw.Draw(picture).rectangle((left, top, left + 7, top + 7), COLOURS[colour])
        content = io.BytesIO()
        picture.save(content, "PNG")
        (raw / f"{number}.png").write_bytes(content.getvalue())
        rows.append(
            {
                "images": [f"{number}.png"],
                "question": f"{number}: which colour has the square?",
                "answer": colour,
            }
        )
    (raw / "squares.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = {"template": TEMPLATE, "markers": ["<end_of_utterance>"], "picture": "<image>"}
    files: dict[str, object] = {
        "tokenizer/own_vision": {
            "name": "own_vision",
            "kind": "chat",
            "base": "synthetic_bpe",
            "chat": {**chat, "turn_end": "<end_of_utterance>"},
        },
        "evaluation/own_seen": {
            **yaml.safe_load((conf_dir() / "evaluation/_base.yaml").read_text()),
            "heldout_max_items": 4,
            "score": {"direction": "minimize", "terms": {"one": {"metrics": "heldout_*/bpb"}}},
        },
        "method/own_vlm": {"kind": "vlm", "loss": "answers", "vision": EYE},
        "mixture/own_pictures": {"weights": {"squares": 0.5, "synthetic_facts": 0.5}},
        "schedule/own_rows": {
            "total_tokens": None,
            "total_samples": 32,
            "stages": {
                "warm_up": {"share": 0.5, "weights": {"squares": 1.0}},
                "main": {"share": 0.5, "weights": None},
            },
            "lr": {"kind": "wsd", "warmup_share": 0.25, "decay_share": "main"},
        },
        "source/squares": {
            "domain": "pictures",
            "tokens_available": 2000,
            "origin": {"kind": "files", "paths": [str(raw / "squares.jsonl")]},
            "rows": {
                "kind": "pictures",
                "max_tokens": 48,
                "question_column": "question",
                "answer_column": "answer",
                "picture_size": SIDE,
                "available": 72,
            },
            "heldout_share": 0.1,
            "licence": "none",
        },
    }
    for name, content_of in files.items():
        path = conf / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content_of, sort_keys=False))
    answer = ablate("run", *TINY, *SHORT_SOURCES, "study=base", "trial=base")
    assert answer.code == 0, answer.err
    given = (*VLM, SHORT_SOURCES[0], start(workspace))
    answer = ablate("prepare", *given, "prepare.contamination=false")
    assert answer.code == 0, answer.err
    return workspace


def start(own: Path) -> str:
    (last,) = sorted(own.glob("runs/base/base-0/checkpoints/8"))
    return f"warm_start.checkpoint={last}"


def weights_of(record: RunRecord) -> bytes:
    return (record.path / "checkpoints/8/model.safetensors").read_bytes()


def test_a_run_with_pictures_is_planned_trained_and_audited(own: Path, ablate: Ablate) -> None:
    given = (*VLM, SHORT_SOURCES[0], start(own))
    plan = ablate("plan", *given)
    assert plan.code == 0, plan.err
    assert "rows per stage" in plan.out
    assert "becomes 7 tokens" in plan.out
    done = ablate("run", *given, "study=see", "trial=one")
    assert done.code == 0, done.err
    result = read_json(own / "runs/see/one-0/result.json")
    assert result["audit_ok"] is True
    assert {"heldout_squares/gain", "heldout_synthetic_facts/bpb"} <= set(result["metrics"])
    assert (result["step"], result["tokens"]) == (8, 32)
    assert result["cost"]["flops"] > 0
    audited = read_json(own / "runs/see/one-0/audit.json")["stages"]
    assert [row["windows"] for row in audited] == [16, 0, 8, 8]
    losses = [row["loss"] for row in read_json_lines(own / "runs/see/one-0/metrics.jsonl")]
    assert losses[-1] < losses[0]
    again = ablate("run", *given, "study=see", "trial=one")
    assert again.code == 0, again.err


@pytest.mark.slow
def test_the_arms_of_a_study_share_the_warm_up_of_the_vision_part(
    own: Path, ablate: Ablate
) -> None:
    given = (
        "run",
        "-m",
        *VLM,
        SHORT_SOURCES[0],
        start(own),
        CHOSEN,
        "study=see",
        "hydra.launcher.slots=1",
    )
    for folder, trunks in (("alone", "false"), ("shared", "true")):
        answer = ablate(*given, f"runs_dir={folder}", f"search.trunks={trunks}")
        assert answer.code == 0, answer.err
    alone = {record.name: weights_of(record) for record in list_runs(own / "alone")}
    shared = {record.name: weights_of(record) for record in list_runs(own / "shared")}
    assert len(alone) == 2
    assert shared == alone
    (trunk,) = trunks_dir(own / "shared/see").iterdir()
    cost = read_json(trunk / "trunk.json")["cost"]
    assert (cost["step"], cost["tokens"]) == (4, 16.0)
    for record in list_runs(own / "shared"):
        result = record.result()
        assert result is not None
        assert result["trunk"]["step"] == 4


REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("tokenizer.chat.picture=null",), "no token stands for a picture"),
    (("tokenizer=synthetic_bpe",), "has no chat template"),
    (("warm_start.checkpoint=null",), "begins from a trained model"),
    (("method.vision=null",), "no vision part"),
    (("method.vision.image_size=32",), "differs from method.vision.image_size"),
    (("method.vision.patch_size=5",), "not a whole number of tokens a side"),
    (("training.sequence_length=48", "method.vision.patch_size=2"), "with its pictures"),
    (("training.sequence_length=40",), "shorter than the rows of 'squares'"),
    (("schedule.total_samples=null", "schedule.total_tokens=32"), "counts samples"),
    (("execution.stop_tokens=8",), "is for method=pretrain"),
    (("execution.trunk_tokens=28",), "not on the plateau of the learning rate"),
    (("method=sft",), "method=sft trains on conversations"),
)


def test_a_config_that_cannot_be_trained_is_refused_before_it_is(own: Path, ablate: Ablate) -> None:
    for change, problem in REFUSED:
        answer = ablate("plan", *VLM, SHORT_SOURCES[0], start(own), *change)
        assert answer.code == 2, (change, answer.out)
        assert problem in answer.err, change


def test_conf_states_the_demo_eye() -> None:
    from ablations.training.vision import VisionSpec

    stated = yaml.safe_load((conf_dir() / "method/vlm.yaml").read_text())
    eye = VisionSpec(**stated["vision"])
    assert (eye.tokens_per_picture, eye.tower_parameters) == (16, 430_592)
    assert eye.connector_parameters(192) == 98_304
