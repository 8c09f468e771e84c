"""Scoring feeds the tokens that training read, which have no BOS, even if the tokenizer adds one."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.data.tokenizer import Tokenizer, TokenizerSpec, make_tokenizer
from ablations.errors import CheckpointError
from ablations.evaluation.model_folder import training_separator
from ablations.evaluation.results import CheckpointScores
from ablations.evaluation.scoring import ScoringPlace, score_folder
from ablations.evaluation.specs import EvaluationSpec, TaskSpec
from tests.evaluation.conftest import tiny_model, write_rows

TASKS = {
    "quiz": TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc", "bpb"), max_items=12),
    "sums": TaskSpec(
        form="generative",
        domain="math",
        items="sums",
        match="number",
        metrics=("exact_match", "bpb"),
        max_new_tokens=4,
    ),
}
TEXT = "the cat sat on a mat and the dog ran home"


def with_bos(tokenizer: Any) -> Any:
    """Return the tokenizer as Llama 3, Mistral and Gemma ship theirs: its post-processor adds a BOS."""
    from tokenizers.processors import TemplateProcessing

    # A token of the vocabulary serves as BOS, so that the weights fit both tokenizers.
    bos = tokenizer.convert_ids_to_tokens(300)
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, 300)], pair=None
    )
    made.bos_token = bos
    assert made("cat")["input_ids"][0] == 300
    return made


def prepared_tokenizer(tokenizer: Any, folder: Path, name: str) -> Tokenizer:
    tokenizer.save_pretrained(folder / "shipped" / name)
    spec = TokenizerSpec(name=name, kind="folder", path=str(folder / "shipped" / name))
    return make_tokenizer(spec, folder / "tokenizers", ())


@pytest.fixture(scope="module")
def folders(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export the same weights with both tokenizers, and with BOS as others publish them."""
    root = tmp_path_factory.mktemp("special")
    made = {
        "plain": prepared_tokenizer(tokenizer, root, "plain"),
        "bos": prepared_tokenizer(with_bos(tokenizer), root, "bos"),
    }
    for name in ("plain", "bos", "published"):
        tiny_model(tokenizer, 0).save_pretrained(root / name)
        for file in made["bos" if name == "published" else name].folder.glob("*.json"):
            if name != "published" or file.name != "spec.json":
                shutil.copyfile(file, root / name / file.name)
    return {name: root / name for name in ("plain", "bos", "published")} | {
        "tokenizer": made["bos"].folder
    }


def scores(folder: Path, data_dir: Path, out: Path) -> CheckpointScores:
    store = out / "store"
    store.mkdir(parents=True)
    write_rows(store / "heldout.jsonl", [{"id": "1", "text": TEXT}])
    spec = EvaluationSpec(tasks=TASKS, max_items=20)
    return score_folder(
        folder, spec, out, place=ScoringPlace(data_dir=data_dir, stores={"wiki": store})
    )


def test_the_same_weights_score_alike_whatever_the_tokenizer_puts_before_a_text(
    folders: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    plain = scores(folders["plain"], data_dir, tmp_path / "plain").flat()
    bos = scores(folders["bos"], data_dir, tmp_path / "bos").flat()
    assert set(plain) >= {"quiz/acc", "quiz/bpb", "sums/exact_match", "sums/bpb"}
    assert None not in plain.values()
    assert bos == plain


def test_a_published_model_keeps_its_own_bos(
    folders: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    ours = scores(folders["bos"], data_dir, tmp_path / "ours").flat()
    published = scores(folders["published"], data_dir, tmp_path / "published").flat()
    for task in ("quiz/bpb", "heldout_wiki/bpb"):
        assert published[task] != pytest.approx(ours[task], rel=1e-4), task


def test_bits_per_byte_are_those_of_the_tokens_that_training_reads(
    folders: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from ablations.data.pipeline import WriteTokens
    from ablations.data.tokenizer import open_tokenizer

    writer = WriteTokens(tmp_path / "store", open_tokenizer(folders["tokenizer"]))
    written = writer.tokenizer.encode_batch_fast([TEXT])[0].ids
    eos = training_separator(folders["bos"])
    assert written[-1] == eos
    assert written[0] != 300
    model = AutoModelForCausalLM.from_pretrained(str(folders["bos"])).eval()
    with torch.no_grad():  # a document follows the end of the one before
        logits = model(input_ids=torch.tensor([[eos, *written[:-2]]])).logits[0]
    logprobs = torch.log_softmax(logits.double(), -1)[range(len(written) - 1), written[:-1]]
    expected = -float(logprobs.sum()) / math.log(2) / len(TEXT.encode())
    found = scores(folders["bos"], data_dir, tmp_path / "bos").flat()["heldout_wiki/bpb"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_settings_that_cannot_be_read_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["bos"], tmp_path / "broken")
    (tmp_path / "broken/spec.json").write_text('{"hash": "x"}')
    with pytest.raises(CheckpointError, match=r"spec\.json: not the settings of a tokenizer"):
        training_separator(tmp_path / "broken")
    assert training_separator(folders["published"]) is None
