"""Check each value of a small chain of files, and each fault of a handover, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.specs import ModelSpec, TrainingSpec
from sweeps.nanotron_files.chain import (
    ChainRun,
    chain,
    checkpoint_folder,
    continuation,
    handover_problems,
    slug,
)
from sweeps.nanotron_files.model_sections import LlamaModel, RandomInit
from sweeps.nanotron_files.run_sections import Parallelism
from sweeps.nanotron_files.sections import AdamW, NanotronFile, TokenFolders

FOLDERS = {"web": "tokens/web", "code": "tokens/code"}
STAGES = (
    Stage(name="Stable part", steps=30, mixture=Mixture({"web": 1.0, "code": 0.0})),
    Stage(name="more", steps=20, mixture=Mixture({"web": 0.46, "code": 0.54})),
    Stage(name="decay", steps=10, mixture=Mixture({"code": 1.0})),
)
MODEL = ModelSpec(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=48,
    rope_theta=5000.0,
    rms_norm_eps=1e-4,
    tie_word_embeddings=False,
    initializer_range=0.03,
    bos_token_id=1,
    eos_token_id=2,
)
TRAINING = TrainingSpec(
    sequence_length=32,
    batch_size=24,
    peak_lr=0.004,
    weight_decay=0.2,
    adam_beta1=0.8,
    adam_beta2=0.9,
    adam_eps=1e-7,
    clip_norm=0.5,
    accumulate_grad_in_fp32=False,
    dtype="bfloat16",
)
RATE = LearningRate(
    peak=0.004, warmup_steps=6, decay_steps=12, total_steps=60, shape="1-sqrt", min_ratio=0.25
)


def made(stages: tuple[Stage, ...] = STAGES, **changed: Any) -> ChainRun:
    """Return a run of 24 samples a step: 4 replicas, micro-batches of 2, 3 of them a step."""
    values: dict[str, Any] = {
        "project": "p",
        "name": "n",
        "seed": 7,
        "model": MODEL,
        "training": TRAINING,
        "schedule": Schedule(stages=stages, sequence_length=32, batch_size=24),
        "learning_rate": RATE,
        "tokenizer": "example/tokenizer",
        "folders": FOLDERS,
        "parallelism": Parallelism(dp=4, pp=1, tp=1),
        "micro_batch_size": 2,
        "checkpoints_path": "ck",
        "checkpoint_interval_steps": 7,
    }
    return ChainRun(**{**values, **changed})


def test_each_file_trains_its_last_stage_from_the_checkpoint_of_the_one_before() -> None:
    files = chain(made(resume_from="base/5", load_optimizer=False))
    seen = [
        (
            file.general.project,
            file.general.run,
            file.general.seed,
            [stage.start_training_step for stage in file.data_stages],
            file.tokens.train_steps,
            file.checkpoints.checkpoints_path,
            file.checkpoints.resume_checkpoint_path,
            file.checkpoints.load_optimizer,
        )
        for file in files
    ]
    assert seen == [
        ("p", "n-1_stable_part", 7, [1], 30, "ck/1_stable_part", "base/5", False),
        ("p", "n-2_more", 7, [1, 31], 50, "ck/2_more", "ck/1_stable_part/30", True),
        ("p", "n-3_decay", 7, [1, 31, 51], 60, "ck/3_decay", "ck/2_more/50", True),
    ]
    for file in files:
        assert file.checkpoints.checkpoint_interval == 7
        assert file.checkpoints.save_final_state is True
        assert file.checkpoints.load_lr_scheduler is True
        assert file.checkpoints.checkpoints_path_is_shared_file_system is True
        tokens = file.tokens
        assert (tokens.sequence_length, tokens.micro_batch_size) == (32, 2)
        assert tokens.batch_accumulation_per_replica == 3
        assert file.batch_size == 24
        assert file.parallelism == Parallelism(dp=4, pp=1, tp=1)
        assert file.tokenizer_name == "example/tokenizer"
        assert file.logging is not None
        assert (file.logging.log_level, file.logging.log_level_replica) == ("info", "info")


def test_a_stage_lists_the_sources_that_it_reads_with_their_weights() -> None:
    stages = chain(made())[-1].data_stages
    data = [stage.data.dataset for stage in stages]
    read = [
        (one.dataset_folder, one.dataset_weights) for one in data if isinstance(one, TokenFolders)
    ]
    assert read == [
        (("tokens/web",), (1.0,)),
        (("tokens/web", "tokens/code"), (0.46, 0.54)),
        (("tokens/code",), (1.0,)),
    ]
    assert [stage.name for stage in stages] == ["Stable part", "more", "decay"]
    for stage, one in zip(stages, data, strict=True):
        assert isinstance(one, TokenFolders)
        assert (stage.data.seed, stage.data.num_loading_workers) == (7, 1)
        assert (one.tokenizer_name, one.vocab_size) == ("example/tokenizer", 512)


def test_weights_are_written_with_twelve_digits() -> None:
    thirds = Stage(name="s", steps=60, mixture=Mixture({"web": 1 / 3, "code": 2 / 3}))
    dataset = chain(made((thirds,)))[0].data_stages[0].data.dataset
    assert isinstance(dataset, TokenFolders)
    assert dataset.dataset_weights == (0.333333333333, 0.666666666667)


@pytest.mark.parametrize(("vocabulary", "width"), [(512, 2), (65536, 2), (65537, 4)])
def test_tokens_of_a_vocabulary_above_65536_take_four_bytes(vocabulary: int, width: int) -> None:
    dataset = (
        chain(made(model=replace(MODEL, vocab_size=vocabulary)))[0].data_stages[0].data.dataset
    )
    assert isinstance(dataset, TokenFolders)
    assert (dataset.vocab_size, dataset.token_size_in_bytes) == (vocabulary, width)


@pytest.mark.parametrize(
    ("dtype", "written", "kernel"),
    [
        ("float32", "float32", "sdpa"),
        ("bfloat16", "bfloat16", "flash_attention_2"),
        ("auto", "bfloat16", "flash_attention_2"),
    ],
)
def test_the_model_is_written_with_its_shape_and_a_kernel_for_its_type(
    dtype: Any, written: str, kernel: str
) -> None:
    model = chain(made(training=replace(TRAINING, dtype=dtype)))[0].model
    assert model.dtype == written
    assert model.init_method == RandomInit(std=0.03)
    assert model.model_config == LlamaModel(
        bos_token_id=1,
        eos_token_id=2,
        hidden_size=64,
        initializer_range=0.03,
        intermediate_size=96,
        max_position_embeddings=48,
        num_attention_heads=4,
        num_hidden_layers=3,
        num_key_value_heads=2,
        rms_norm_eps=1e-4,
        rope_theta=5000.0,
        tie_word_embeddings=False,
        vocab_size=512,
        _attn_implementation=kernel,
    )


def test_the_optimiser_is_written_with_the_rate_of_the_whole_schedule() -> None:
    for file in chain(made(zero_stage=1)):
        optimizer = file.optimizer
        assert optimizer.zero_stage == 1
        assert optimizer.weight_decay == 0.2
        assert optimizer.clip_grad == 0.5
        assert optimizer.accumulate_grad_in_fp32 is False
        assert optimizer.optimizer_factory == AdamW(
            adam_eps=1e-7, adam_beta1=0.8, adam_beta2=0.9, torch_adam_is_fused=True
        )
        rate = optimizer.learning_rate_scheduler
        assert (rate.learning_rate, rate.lr_warmup_steps, rate.lr_warmup_style) == (
            0.004,
            6,
            "linear",
        )
        assert (rate.lr_decay_style, rate.lr_decay_starting_step) == ("1-sqrt", 48)
        assert rate.lr_decay_steps == 12
        assert rate.min_decay_lr == pytest.approx(0.001)


def test_without_a_decay_the_least_rate_is_the_plateau() -> None:
    flat = replace(RATE, decay_steps=0)
    rate = chain(made(learning_rate=flat))[0].optimizer.learning_rate_scheduler
    assert rate.min_decay_lr == pytest.approx(0.004)
    assert (rate.lr_decay_steps, rate.lr_decay_starting_step) == (0, 60)


def test_a_run_names_every_source_without_a_folder_and_a_batch_that_does_not_divide() -> None:
    with pytest.raises(ConfigError) as refused:
        made(folders={"math": "x"}, micro_batch_size=5)
    assert [str(problem) for problem in refused.value.problems] == [
        "folders.web: a source of the schedule has no folder",
        "folders.code: a source of the schedule has no folder",
        "parallelism.dp: the batch does not divide over replicas and micro-batches; found: "
        "24 samples / (4 replicas x 5); allowed: a whole number of micro-batches per step",
    ]


@pytest.mark.parametrize(("micro", "fits"), [(3, True), (6, True), (12, False), (4, False)])
def test_a_batch_divides_over_replicas_times_micro_batches(micro: int, fits: bool) -> None:
    if fits:
        assert chain(made(micro_batch_size=micro))[0].batch_size == 24
    else:
        with pytest.raises(ConfigError, match="does not divide"):
            made(micro_batch_size=micro)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Stable Part", "stable_part"),
        ("decay-2", "decay_2"),
        ("_a_", "a"),
        ("--", "stage"),
        ("", "stage"),
    ],
)
def test_a_name_becomes_that_of_a_folder(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_the_folder_of_a_stage_counts_from_one() -> None:
    assert [checkpoint_folder(made(), stage) for stage in range(3)] == [
        "ck/1_stable_part",
        "ck/2_more",
        "ck/3_decay",
    ]


def test_a_chain_that_the_branch_would_refuse_is_refused_once_for_all_its_files() -> None:
    with pytest.raises(ConfigError) as refused:
        chain(made(parallelism=Parallelism(dp=4, pp=1, tp=3)))
    messages = [str(problem) for problem in refused.value.problems]
    assert any("tp" in message for message in messages)
    assert len(messages) == len(set(messages))


def test_a_continuation_starts_again_at_step_one_from_a_checkpoint() -> None:
    single = (replace(STAGES[1], steps=60),)
    file = continuation(made(single, resume_from="base/9", load_optimizer=False))
    assert file.checkpoints.resume_checkpoint_path == "base/9"
    assert file.checkpoints.load_lr_scheduler is False
    assert file.checkpoints.load_optimizer is False
    assert file.checkpoints.checkpoints_path == "ck/1_more"
    assert [stage.start_training_step for stage in file.data_stages] == [1]
    assert file.tokens.train_steps == 60
    for wrong in (made(single), made(resume_from="base/9")):
        with pytest.raises(ConfigError, match="a checkpoint to start from and exactly one stage"):
            continuation(wrong)


def changed_last_stage(file: NanotronFile, step: int) -> NanotronFile:
    *before, last = file.data_stages
    return replace(file, data_stages=(*before, replace(last, start_training_step=step)))


def faults() -> dict[str, tuple[NanotronFile, NanotronFile, str]]:
    """Return pairs of files that do not hand over, each for one reason."""
    first, second, _ = chain(made())
    unsaved = replace(first.checkpoints, save_final_state=False)
    stage = replace(first.data_stages[0], name="other")
    return {
        "late": (
            first,
            changed_last_stage(second, 32),
            "file 2: starts elsewhere; found: 32; allowed: 31",
        ),
        "early": (
            first,
            changed_last_stage(second, 29),
            "file 2: starts elsewhere; found: 29; allowed: 31",
        ),
        "elsewhere": (
            first,
            replace(
                second, checkpoints=replace(second.checkpoints, resume_checkpoint_path="ck/x/30")
            ),
            "file 2: does not resume from the last checkpoint of the file before; found: ck/x/30; "
            "allowed: ck/1_stable_part/30",
        ),
        "unsaved": (
            replace(first, checkpoints=unsaved),
            second,
            "file 2: the checkpoint of step 30 is never saved",
        ),
        "counted again": (
            first,
            replace(second, checkpoints=replace(second.checkpoints, load_lr_scheduler=False)),
            "file 2: would count steps from 1 again; load_lr_scheduler",
        ),
        "other stages": (
            first,
            replace(second, data_stages=(stage, second.data_stages[1])),
            "file 2: does not list the stages before as they were trained",
        ),
        "longer": (
            first,
            replace(second, tokens=replace(second.tokens, sequence_length=64)),
            "file 2: changes the sequence length within a run",
        ),
        "optimiser": (
            first,
            replace(second, optimizer=replace(second.optimizer, weight_decay=0.3)),
            "file 2: changes the model or the optimiser within a run",
        ),
        "model": (
            first,
            replace(second, model=replace(second.model, init_method=RandomInit(std=0.5))),
            "file 2: changes the model or the optimiser within a run",
        ),
    }


@pytest.mark.parametrize("fault", list(faults()))
def test_each_fault_of_a_handover_is_told_alone(fault: str) -> None:
    before, after, message = faults()[fault]
    assert [str(problem) for problem in handover_problems((before, after))] == [message]


def test_a_final_state_that_the_interval_saves_anyway_hands_over() -> None:
    first, second, third = chain(made(checkpoint_interval_steps=10))
    unsaved = replace(first, checkpoints=replace(first.checkpoints, save_final_state=False))
    assert handover_problems((unsaved, second, third)) == []
    late = changed_last_stage(third, 52)
    found = [str(problem) for problem in handover_problems((unsaved, second, late))]
    assert found == ["file 3: starts elsewhere; found: 52; allowed: 51"]
