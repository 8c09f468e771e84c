"""Places on the hub of the data sets that published mixtures read as files of their own.

SmolVLM2's files name a collection (``path``) and a JSON file on a disk of their authors. Of one collection
the name of a data set gives its folder on the hub too; of the others the hub has the data, in other files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sweeps.picture_mixtures.published_file import DataSet

__all__ = ["Place", "place_of"]

_HUB = "https://huggingface.co/datasets/"

_BY_FOLDER = {
    "llava-onevision": ("lmms-lab/LLaVA-OneVision-Data", "Apache-2.0; each data set its own")
}
"""Collection → its data set on the hub, which has a folder of parquet files for each name after the colon."""

_ELSEWHERE = {
    "m4-instruct-data": "lmms-lab/M4-Instruct-Data",
    "mammoth": "MAmmoTH-VL/MAmmoTH-VL-Instruct-12M",
    "llava-video-178k": "lmms-lab/LLaVA-Video-178K",
    "finevideo": "HuggingFaceFV/finevideo",
    "video-star": "orrzohar/Video-STaR",
    "vript": "Mutonix/Vript",
    "vista-400k": "TIGER-Lab/VISTA-400K",
    "moviechat": "Enxin/MovieChat-1K_train",
    "sharegpt4video": "ShareGPT4Video/ShareGPT4Video",
}
"""Collection → data set that the card of HuggingFaceTB/SmolVLM2-2.2B-Instruct names; its files differ."""

_PLAIN = re.compile(r"[^*?\[\]/\\]+")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Origin of a data set, as far as it is known."""

    origin: dict[str, Any]
    licence: str
    url: str
    note: str
    on_hub: bool
    """True if the origin is a folder on the hub."""


def place_of(one: DataSet) -> Place:
    """Return the place of a data set: its folder on the hub, or the file of its publisher."""
    collection, _, part = one.name.partition(":")
    if collection in _BY_FOLDER and _PLAIN.fullmatch(part):
        repo, licence = _BY_FOLDER[collection]
        # By its files, not as a subset: names hold commas, which separate subsets.
        return Place(
            origin={"kind": "hub", "repo": repo, "files": [f"{part}/*.parquet"]},
            licence=licence,
            url=_HUB + repo,
            note="its folder on the hub was not opened",
            on_hub=True,
        )
    repo = _ELSEWHERE.get(one.folder.lower(), "")
    return Place(
        origin={"kind": "files", "paths": [one.file]},
        licence="unknown",
        url=_HUB + repo if repo else "",
        note="a file of the publisher's own"
        + (f", made of {repo}; set origin" if repo else "; its place on the hub is not known"),
        on_hub=False,
    )
