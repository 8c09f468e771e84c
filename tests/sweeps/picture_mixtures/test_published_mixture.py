"""Published mixtures of pictures, in the form of SmolVLM2's files: read, refused, imported, planned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ablations.data.catalogue import load_source
from ablations.errors import ConfigError
from sweeps.nanotron_files.foreign_yaml import root_node
from sweeps.picture_mixtures.import_mixture import ImportedMixture, import_mixture, write_mixture
from sweeps.picture_mixtures.published_file import (
    PublishedMixture,
    holds_pictures,
    read_mixture,
    rows_taken,
)
from tests.conftest import Ablate

OURS = """\
datasets:
- _comment: '# 2000 samples'
  category: Talk
  json_path: /disk/talk.json
  modality: text
  name: llava-onevision:talk(a,b)
  path: llava-onevision
  sampling_strategy: random:10.01%
- category: Charts
  json_path: /disk/bars.json
  # 400 samples, 0.5% path validation failures
  modality: image
  name: bars
  sampling_strategy: all
- {name: lines, modality: image, category: charts,
   json_path: lines.json, sampling_strategy: 'end:99'}  # 199 samples
- _comment: 'about 1,000 samples'
  json_path: /disk/pairs.json
  modality: multiimage
  name: m4:pairs
  path: M4-Instruct-Data
  sampling_strategy: first:200
- name: clips
  modality: video
  duration: short
  json_path: /disk/clips.json
  path: finevideo
  sampling_strategy: random:100
"""
"""Rows of an epoch: 201 (10.01% of 2,000, rounded up), 400, 99, 200, 100: 1,000 in all."""


def read(text: str) -> PublishedMixture:
    return read_mixture(root_node(text, "ours.yaml"), text, "ours.yaml")


def imported(text: str = OURS) -> ImportedMixture:
    return import_mixture(read(text), "ours.yaml", "ours")


@pytest.mark.parametrize(
    ("strategy", "samples", "taken"),
    [
        ("all", 7, 7),
        ("all", None, None),
        ("first:3", 7, 3),
        ("end:3", 7, 3),
        ("random:9", 7, 7),
        ("random:3", None, 3),
        ("random:50%", 7, 4),
        ("first:100.00%", 7, 7),
        ("random:0.86%", 199995, 1720),
        ("end:0%", 7, 1),
        ("random:50%", None, None),
    ],
)
def test_a_strategy_takes_the_rows_that_the_published_loader_takes(
    strategy: str, samples: int | None, taken: int | None
) -> None:
    assert rows_taken(strategy, samples) == taken


@pytest.mark.parametrize(
    ("strategy", "fault"),
    [
        ("random", "unknown strategy"),
        ("last:5", "unknown strategy"),
        ("random: 5", "unknown strategy"),
        ("random:-5", "unknown strategy"),
        ("random:nan%", "unknown strategy"),
        ("first:5:6", "unknown strategy"),
        ("", "unknown strategy"),
        ("random:100.01%", "more than 100%"),
        ("end:0", "takes no row"),
    ],
)
def test_a_strategy_that_the_loader_misreads_is_refused(strategy: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        rows_taken(strategy, 10)


def test_counts_stand_in_a_field_or_in_a_comment_and_shares_follow() -> None:
    mixture = read(OURS)
    assert [one.taken for one in mixture.datasets] == [201, 400, 99, 200, 100]
    assert [one.samples for one in mixture.datasets] == [2000, 400, 199, 1000, None]
    made = imported()
    assert {one.label: one.share for one in made.by_modality} == pytest.approx(
        {"text": 0.201, "one picture": 0.499, "several pictures": 0.2, "video": 0.1}
    )
    # Categories that differ in capitals are one.
    charts = next(one for one in made.by_category if "Charts" in one.label)
    assert (charts.label, charts.datasets, charts.rows) == ("one picture: Charts", 2, 499)
    assert made.by_category[-1].label == "video: no category"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("random:10.01%", "some:10%", "ours.yaml:8:22: .*unknown strategy.*found: some:10%"),
        ("random:10.01%", "random:101%", "ours.yaml:8:22: .*more than 100%"),
        ("_comment: '# 2000 samples'", "quality: '4'", "ours.yaml:2:3: .*rows of .*not stated"),
        ("2000 samples", "0 samples", "ours.yaml:2:3: .*states no number of rows"),
        ("modality: image\n", "modality: sound\n", "ours.yaml:12:13: unknown modality of 'bars'"),
        ("  name: bars\n", "", "ours.yaml:9:3: a data set without name"),
        ("  name: bars\n", "  name:\n", "ours.yaml:9:3: a data set without name"),
        ("  json_path: /disk/bars.json\n", "", "ours.yaml:9:3: a data set without json_path"),
        ("name: bars", "name: clips", "ours.yaml:23: the name 'clips' .*lines 9, 23"),
        ("- category: Charts", "- name: x", "ours.yaml:13:3: the key 'name' occurs twice"),
        ("- category: Charts", "- bars\n- category: Charts", "ours.yaml:9:3: not a data set"),
    ],
)
def test_a_fault_is_refused_at_its_line_and_column(old: str, new: str, fault: str) -> None:
    damaged = OURS.replace(old, new, 1)
    assert damaged != OURS
    with pytest.raises(ConfigError, match=fault):
        read(damaged)


def test_every_fault_of_a_file_is_reported_at_once() -> None:
    damaged = OURS.replace("random:10.01%", "random:300%").replace(
        "modality: video", "modality: tv"
    )
    with pytest.raises(ConfigError) as refused:
        read(damaged)
    assert len(refused.value.problems) == 2


def test_a_file_without_data_sets_is_refused() -> None:
    with pytest.raises(ConfigError, match="no data set in it"):
        read("datasets: []\n")


def test_a_bare_list_is_read_and_remarked_on() -> None:
    made = imported("\n".join(OURS.splitlines()[1:]))
    assert made.mixture.rows == 1000
    assert any("bare list" in remark for remark in made.remarks)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OURS, True),
        ("- {json_path: a}\n", True),
        ("train: [{json_path: a}]\n", True),
        ("datasets: []\n", True),
        ("data_stages: [{name: stable}]\n", False),
        ("", False),
        ("7\n", False),
    ],
)
def test_the_two_forms_of_published_files_are_told_apart(text: str, found: bool) -> None:
    assert holds_pictures(root_node(text)) is found


def test_what_the_file_leaves_open_is_listed() -> None:
    remarks = "\n".join(imported().remarks)
    for part in (
        "clips: its rows are not stated; random:100 is taken at its word",
        "4 of 5 data sets are files of the publisher's own",
        "last rows of lines",
        "each epoch repeats",
        "videos are read as frames",
        "tokens of a row are not stated",
    ):
        assert part in remarks


def test_an_import_holds_sources_with_their_place_where_it_is_known(tmp_path: Path) -> None:
    out = write_mixture(imported(), tmp_path / "ours")
    folder = out / "conf" / "source"
    talk = load_source("talk_a_b", [folder])
    assert talk.origin.kind == "hub"
    assert talk.origin.repo == "lmms-lab/LLaVA-OneVision-Data"
    assert talk.origin.files == ("talk(a,b)/*.parquet",)
    pairs = load_source("pairs", [folder])
    assert pairs.origin.kind == "files"
    assert pairs.url.endswith("lmms-lab/M4-Instruct-Data")
    assert pairs.max_documents == 200
    assert pairs.rows is not None
    assert (pairs.rows.kind, pairs.rows.max_pictures) == ("pictures", 6)
    clips = load_source("clips", [folder])
    assert clips.rows is not None
    assert (clips.rows.frames, clips.rows.available) == (64, 100)
    written = json.loads((out / "published.json").read_text())
    assert [one["strategy"] for one in written["datasets"]][:2] == ["random:10.01%", "all"]
    search = yaml.safe_load((out / "conf" / "search" / "ours.yaml").read_text())
    groups = search["space"]["mixtures"]["mixture.weights"]["groups"]
    assert groups == {"image": {"sources": ["bars", "lines"]}}


def test_the_command_prints_shares_and_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ours.yaml").write_text(OURS)
    answer = ablate("import", "file=ours.yaml")
    assert answer.code == 0, answer.err
    assert "5 data sets, 1,000 rows of an epoch" in answer.out
    assert " 20.10%          201 rows, 1 data set\n" in answer.out
    assert "one picture: Charts            49.90%          499 rows, 2 data sets" in answer.out
    assert "experiment=ours" in answer.out
    planned = ablate("plan", "--config-dir", "imports/ours/conf", "experiment=ours")
    assert planned.code == 0, planned.err
    assert "in 2 steps of 512" in planned.out
    refused = ablate("import", "file=ours.yaml")
    assert refused.code == 2
    assert "nothing is overwritten" in refused.err


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (OURS.replace("  name: bars", "   name: bars").encode(), r"ours.yaml:13:8: not YAML"),
        (OURS.encode()[:60] + b"\xff", r"ours.yaml:4:5: not UTF-8 text"),
        (b"datasets: [{name: 'x\n", r"ours.yaml:\d+:\d+: not YAML"),
    ],
)
def test_a_damaged_file_is_refused_at_its_line_and_column(
    content: bytes, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ours.yaml").write_bytes(content)
    answer = ablate("import", "file=ours.yaml")
    assert answer.code == 2
    assert re.search(place, answer.err), answer.err
    assert not Path("imports").exists()
