"""Small pictures, rows about them and a tokenizer with a token of pictures, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.prepare import prepare
from ablations.data.rows.chat_template import ChatSpec
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.row_store import RowStore, heldout_pictures
from ablations.data.tokenizer import TokenizerSpec
from tests.oracles.chats import make_base_tokenizer

SIDE = 16
"""Pixels of a side of a stored picture."""

END = "<end_of_utterance>"

SMOLVLM = (
    "{%- for message in messages -%}"
    "{{- message['role'] | capitalize -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- ':' -}}{%- generation -%}"
    "{{- ' ' + message['content'] + '<end_of_utterance>' -}}"
    "{%- endgeneration -%}"
    "{%- else -%}"
    "{{- ':' if message['content'].startswith('<image>') else ': ' -}}"
    "{{- message['content'] + '<end_of_utterance>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)

VISION_CHAT = ChatSpec(template=SMOLVLM, markers=(END,), turn_end=END, picture="<image>")

VISION_TOKENIZER = TokenizerSpec(name="tiny_vision", kind="chat", base="tiny", chat=VISION_CHAT)

PICTURES, ROWS = 40, 90
"""Of :func:`write_shown`: each picture is shown by two rows or three."""

Pixels = npt.NDArray[np.uint8]


def pixels(seed: int, height: int = SIDE, width: int = SIDE) -> Pixels:
    """Return pixels of a seed, [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def packed(image: Pixels | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    made.save(stream, form, **options)
    return stream.getvalue()


def write_pictures(folder: Path, seeds: Iterable[int]) -> None:
    """Write ``<seed>.png`` for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed}.png").write_bytes(packed(pixels(seed)))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows beside their pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(number: int, *pictures: Any) -> dict[str, Any]:
    """Return a row of a question about pictures."""
    return {"images": list(pictures), "question": f"what {number}?", "answer": f"a thing {number}"}


def write_shown(folder: Path) -> Path:
    """Write rows of one picture, of none and of two."""
    write_pictures(folder, range(PICTURES))
    rows = [asked(n, f"{n % PICTURES}.png") for n in range(ROWS)]
    rows += [asked(n) for n in range(ROWS, ROWS + 10)]  # text alone
    rows += [asked(200 + n, f"{n}.png", f"{n + 1}.png") for n in range(0, 10, 2)]
    return write_jsonl(folder / "rows.jsonl", rows)


def picture_source(path: Path, **values: Any) -> SourceSpec:
    """Return a source of rows with pictures in a file; values of its rows as ``rows``."""
    rows = {"question_column": "question", "answer_column": "answer", **values.pop("rows", {})}
    return SourceSpec(
        **{
            "domain": "pictures",
            "tokens_available": 10_000,
            "origin": FilesOrigin(kind="files", paths=(str(path),)),
            "rows": RowSpec(**{"kind": "pictures", "max_tokens": 64, "picture_size": SIDE, **rows}),
            "heldout_share": 0.2,
            "licence": "none",
            **values,
        }
    )


def prepare_pictures(
    data_dir: Path, sources: Mapping[str, SourceSpec], **options: Any
) -> dict[str, Path]:
    """Prepare sources with the tokenizer of pictures; return their folders."""
    make_base_tokenizer(data_dir)
    made = prepare(sources, VISION_TOKENIZER, data_dir, **options)
    return {one.name: one.folder for one in made}


def training_rows(folder: Path) -> list[tuple[bytes, bytes, bytes]]:
    """Return tokens, mask and pictures of every row, sorted: the content, whatever its order."""
    store = RowStore.open(folder)
    rows = [store.read(sample)[0] for sample in range(len(store))]
    return sorted((r.tokens.tobytes(), r.mask.tobytes(), r.pictures.tobytes()) for r in rows)


def heldout_items(folder: Path) -> list[tuple[str, tuple[str, ...], tuple[bytes, ...]]]:
    """Return query, choices and pictures of every held-out item, sorted."""
    kept = heldout_pictures(folder)
    items = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    return sorted(
        (item["query"], tuple(item["choices"]), tuple(kept[n].tobytes() for n in item["pictures"]))
        for item in items
    )
