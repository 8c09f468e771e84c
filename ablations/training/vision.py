"""Vision part of a vision-language model: its shape, parameters, FLOPs and memory, without torch.

    picture [3, S, S] ─▶ patches (S / patch_size)² ─▶ tower ─▶ pixel shuffle by scale_factor ─▶ connector
                                                                      (S / patch_size / scale_factor)² tokens

>>> demo = VisionSpec(image_size=64, patch_size=8, scale_factor=2, hidden_size=128, intermediate_size=256,
...                   num_hidden_layers=3, num_attention_heads=4)
>>> demo.tokens_per_picture, demo.parameters(text_width=192)
(16, 528896)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ablations.errors import ConfigError, Problem

__all__ = ["VisionLoad", "VisionSpec"]

_CHANNELS = 3

_DEFAULTS: Mapping[str, int] = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
}
"""Defaults of transformers' SmolVLMVisionConfig: a saved config leaves out what is equal to them."""


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """Vision tower and pixel shuffle, with the field names of ``transformers.SmolVLMVisionConfig``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    image_size: int
    """Pixels of a side of each picture: source.rows.picture_size of every source with pictures."""
    patch_size: int
    """Pixels of a side of a patch. Pixels that fill no patch are not seen (SmolVLM 2.2B: 14 on 384)."""
    scale_factor: int
    """Pixel shuffle: so many patches a side become one token of the text part, scale_factor² as wide."""
    hidden_size: int
    """Width of the tower."""
    intermediate_size: int
    """Width of its feed-forward layer."""
    num_hidden_layers: int
    """Layers of the tower."""
    num_attention_heads: int
    """Heads of the tower; they divide hidden_size."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, value in asdict(self).items():
            if value < 1:
                yield Problem(
                    f"method.vision.{name}", "must be positive", found=value, allowed=">= 1"
                )
                return
        if not self.side or self.side % self.scale_factor:
            yield Problem(
                "method.vision.image_size",
                "not a whole number of tokens a side",
                found=f"{self.image_size} / {self.patch_size} / {self.scale_factor}",
                allowed="patches a side that are a multiple of scale_factor",
            )
        if self.hidden_size % self.num_attention_heads:
            yield Problem(
                "method.vision.num_attention_heads",
                "does not divide the tower's width",
                found=f"{self.hidden_size} / {self.num_attention_heads}",
                allowed=f"a divisor of {self.hidden_size}",
            )

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> VisionSpec:
        """Return the vision part that the ``config.json`` of a vision-language model describes.

        Raises:
            ConfigError: it is not one that the platform trains.
        """
        stated = config.get("vision_config") or {}
        values = {name: stated.get(name, default) for name, default in _DEFAULTS.items()}
        values["scale_factor"] = config.get("scale_factor", 2)
        if wrong := sorted(name for name, value in values.items() if not isinstance(value, int)):
            raise ConfigError(
                Problem("config.json", "not a square vision tower", found=", ".join(wrong))
            )
        return cls(**values)

    @property
    def side(self) -> int:
        """Return the whole patches of a side of a picture."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Return the patches of a picture."""
        return self.side**2

    @property
    def tokens_per_picture(self) -> int:
        """Return the tokens of the text part that stand for a picture, without the markers around them."""
        return (self.side // self.scale_factor) ** 2

    @property
    def block_tokens(self) -> int:
        """Return the tokens that stand for a picture with its markers: two before it, one after."""
        return self.tokens_per_picture + 3

    @property
    def _layer_matrices(self) -> int:
        return 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size

    @property
    def _embedding_matrix(self) -> int:
        return _CHANNELS * self.patch_size**2 * self.hidden_size

    @property
    def tower_parameters(self) -> int:
        """Return the parameters of the tower: patches, positions, layers with their biases, norms."""
        width = self.hidden_size
        layer = self._layer_matrices + 9 * width + self.intermediate_size
        embedding = self._embedding_matrix + width + self.patches * width
        return embedding + self.num_hidden_layers * layer + 2 * width

    def connector_parameters(self, text_width: int) -> int:
        """Return the parameters of the connector to a text part of ``text_width``."""
        return self.hidden_size * self.scale_factor**2 * text_width

    def parameters(self, text_width: int) -> int:
        """Return the parameters of tower and connector."""
        return self.tower_parameters + self.connector_parameters(text_width)

    def flops_per_picture(self, text_width: int) -> int:
        """Return the training FLOPs of one picture, counted as those of a token of text are.

        The text part's FLOPs of the picture's tokens are not among them.
        """
        matrices = self._embedding_matrix + self.num_hidden_layers * self._layer_matrices
        attention = 12 * self.num_hidden_layers * self.hidden_size * self.patches
        connector = 6 * self.connector_parameters(text_width) * self.tokens_per_picture
        return self.patches * (6 * matrices + attention) + connector

    def activations(self) -> int:
        """Return the numbers that the tower and the connector keep of a picture for the backward pass.

        For each patch a layer keeps 8 times its width and twice that of the feed-forward: inputs and outputs
        of the norms (4), queries, keys and values, the attention's output; and what is before and after the
        activation function. The pixels, and what the connector reads, come once.
        """
        layer = 8 * self.hidden_size + 2 * self.intermediate_size + 2 * self.num_attention_heads + 8
        pixels = 2 * _CHANNELS * self.patch_size**2
        return self.patches * (self.num_hidden_layers * layer + 5 * self.hidden_size + pixels)


@dataclass(frozen=True, kw_only=True)
class VisionLoad:
    """Vision part of a training with the pictures of a row, as its memory depends on them."""

    vision: VisionSpec
    text_width: int
    """Width of the text part."""
    pictures: int
    """Most pictures of a row."""

    @property
    def parameters(self) -> int:
        """Return the parameters of tower and connector."""
        return self.vision.parameters(self.text_width)

    @property
    def activations(self) -> int:
        """Return the numbers that are kept of one row's pictures."""
        joined = self.vision.tokens_per_picture * self.text_width
        return self.pictures * (self.vision.activations() + 2 * joined)
