"""Vision-language model as a language model whose vocabulary goes on with the features of pictures.

    tokens     0 … V-1     words, by the table of embeddings
               V + k·p + j the j-th of the k features of the p-th picture that is shown

The features of a picture are computed once and then are rows of the table. So the scorer of log-probabilities
and the generation read prompts with pictures as they read text: packed, batched by tokens, with the keys and
values of a shared beginning computed once. Without a picture among its tokens a prompt is read by the text
part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ablations.errors import EvaluationError
from ablations.evaluation.logprob_scorer import CausalLM
from ablations.training.vlm.picture_inputs import pixel_values

__all__ = ["PictureLM", "features_of"]

_NUMBERS_AT_ONCE = 1 << 22
"""Numbers of pictures in one pass of the vision part: 341 pictures of 64 pixels a side, 5 of 512."""


def features_of(pictures: Sequence[int], words: int, per_picture: int) -> list[list[int]]:
    """Return the tokens of each of the pictures shown, by its place among them.

    Args:
        pictures: Places of the pictures, from 0.
        words: Tokens of the vocabulary.
        per_picture: Features of a picture.
    """
    firsts = (words + per_picture * place for place in pictures)
    return [list(range(first, first + per_picture)) for first in firsts]


class PictureLM(CausalLM):
    """Vision-language model of transformers (SmolVLM, Idefics3).

    Attributes:
        text: Its text part, with the same weights.
        words: Tokens of its vocabulary.
        per_picture: Tokens that it makes of a picture.
        side: Pixels of a side of its pictures.
        picture_id: Id of the token that stands for a feature in its own prompts.
    """

    def __init__(self, vlm: Any) -> None:
        super().__init__(_text_model(vlm))
        self.text = CausalLM(self.model, self._body)
        self.words = int(vlm.get_input_embeddings().num_embeddings)
        self.per_picture = int(vlm.model.image_seq_len)
        self.side = int(vlm.config.vision_config.image_size)
        self.picture_id = int(vlm.config.image_token_id)
        self._vlm = vlm.eval()
        self._features = torch.zeros(0, int(vlm.config.text_config.hidden_size))

    @torch.inference_mode()
    def show(self, pictures: npt.NDArray[np.uint8]) -> None:
        """Compute the features of pictures [n, 3, S, S], in place of those shown before.

        Raises:
            EvaluationError: the model takes pictures of another size.
        """
        if pictures.shape[-1] != self.side:
            raise EvaluationError(
                f"the pictures have {pictures.shape[-1]} pixels a side, and the model takes {self.side}"
            )
        at_once = max(1, _NUMBERS_AT_ONCE // pictures[0].size)
        parts = [
            self._seen(pictures[start : start + at_once])
            for start in range(0, len(pictures), at_once)
        ]
        self._features = torch.cat(parts)

    def _seen(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        values = pixel_values([pictures])
        assert values is not None  # there are some
        features = self._vlm.model.get_image_features(pixel_values=values.to(self.device))
        found = features.pooler_output
        return torch.cat(list(found)) if isinstance(found, (list, tuple)) else found.flatten(0, -2)

    def inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return the embeddings of tokens (rows, columns), those of pictures among them."""
        embedded: Tensor = self.model.get_input_embeddings()(tokens.clamp(max=self.words - 1))
        shown = tokens >= self.words
        embedded[shown] = self._features[tokens[shown] - self.words].to(embedded.dtype)
        return {"inputs_embeds": embedded}


def _text_model(vlm: Any) -> Any:
    """Return the text part as a model of its own, which shares the weights."""
    from transformers import AutoModelForCausalLM

    config = vlm.config.text_config
    with torch.device("meta"):  # no weights are made: the parts are put in their place
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=config._attn_implementation
        )
    model.model, model.lm_head = vlm.model.text_model, vlm.lm_head
    return model
