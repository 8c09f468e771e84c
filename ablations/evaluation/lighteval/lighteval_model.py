"""Model in memory behind lighteval's interface, answered by our scorer."""

from __future__ import annotations

from typing import Any

from ablations.errors import EvaluationError
from ablations.evaluation.encoding import Encoder
from ablations.evaluation.generation import Generated, generate
from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.lighteval.item_metrics import prompt_of
from ablations.evaluation.logprob_scorer import (
    CPU_BATCH_TOKENS,
    BranchScore,
    CausalLM,
    Prepared,
    prepare,
    score,
)
from ablations.evaluation.prefix_packing import Request

with clean_import.undisturbed():
    from lighteval.models.abstract_model import LightevalModel, ModelConfig
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.prompt_manager import PromptManager
    from lighteval.tasks.requests import Doc, SamplingMethod

__all__ = ["MemoryModel"]


class MemoryModel(LightevalModel):  # type: ignore[misc]
    """Lighteval model over weights in memory.

    :meth:`use` changes the weights. Requests are tokenised and batched at their first use and kept
    for the next checkpoint, which shares the tokenizer and the window.

    Args:
        tokenizer: Tokenizer that transformers loads from the model's folder.
        window: Positions of the model.
        batch_tokens: Tokens of a forward pass, padding included.
        separator: Id of the only special token that training put into the text, after each document;
            None = training used the tokenizer's own special tokens.
    """

    def __init__(
        self, tokenizer: Any, *, window: int, batch_tokens: int, separator: int | None = None
    ) -> None:
        self.encoder = Encoder(tokenizer, separator)
        self._window = window
        self._batch_tokens = batch_tokens
        self._network: CausalLM | None = None
        self._prepared: dict[tuple[str, int], tuple[list[Doc], Any]] = {}
        self._plain = PromptManager(use_chat_template=False, tokenizer=tokenizer)
        self._turns = PromptManager(use_chat_template=True, tokenizer=tokenizer)
        self.config = ModelConfig(model_name="in memory")

    def use(self, network: CausalLM) -> None:
        """Score with these weights from now on."""
        self._network = network

    @property
    def network(self) -> CausalLM:
        """Return the weights in use."""
        assert self._network is not None, "call use() first"
        return self._network

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer, which all checkpoints share."""
        return self.encoder.tokenizer

    @property
    def add_special_tokens(self) -> bool:
        """Return True if training began a text with the tokenizer's own special tokens."""
        return self.encoder.separator is None

    @property
    def max_length(self) -> int:
        """Return the positions of the model, for context and continuation together."""
        return self._window

    def respond(self, method: SamplingMethod, docs: list[Doc]) -> list[ModelResponse]:
        """Return the answers to ``docs`` by one of lighteval's three methods."""
        methods = {
            SamplingMethod.LOGPROBS: self.loglikelihood,
            SamplingMethod.PERPLEXITY: self.loglikelihood_rolling,
            SamplingMethod.GENERATIVE: self.greedy_until,
        }
        return methods[method](docs)

    def loglikelihood(self, docs: list[Doc]) -> list[ModelResponse]:
        """Return the log-probabilities of all choices; then, if requested, without the context (PMI)."""
        groups, prepared, requests = self._once("choices", docs, self._choices)
        scores = score(self.network, prepared)
        return [
            _choice_response([(requests[number], scores[number]) for number in group])
            for group in groups
        ]

    def loglikelihood_rolling(self, docs: list[Doc]) -> list[ModelResponse]:
        """Return the log-probabilities of a text's windows; each token is predicted once."""
        groups, prepared = self._once("rolling", docs, self._windows)
        scores = score(self.network, prepared)
        return [
            ModelResponse(logprobs=[scores[number][0].logprob for number in group])
            for group in groups
        ]

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """Return the greedy text after each prompt, up to a stop text."""
        contexts = self._once("contexts", docs, self._contexts)
        first = docs[0]
        texts: list[Generated] = generate(
            self.network,
            self.encoder.tokenizer,
            contexts,
            max_new_tokens=first.generation_size,
            stop=tuple(first.stop_sequences or ()),
            window=self._window,
            batch_tokens=self._batch_tokens,
            ends=self.encoder.ends,
        )
        return [
            ModelResponse(
                text=[one.text],
                output_tokens=[list(one.tokens)],
                truncated_tokens_count=one.cut_tokens,
            )
            for one in texts
        ]

    def _once(self, kind: str, docs: list[Doc], make: Any) -> Any:
        """Return ``make(docs)``, kept for the next call with the same list."""
        key = (kind, id(docs))
        if key not in self._prepared:
            self._prepared[key] = (docs, make(docs))
        return self._prepared[key][1]

    def _choices(self, docs: list[Doc]) -> tuple[list[list[int]], Prepared, list[Request]]:
        """Make one request for each document whose choices share a context, else one for each choice."""
        pairs: list[tuple[str, list[str]]] = []
        groups: list[list[int]] = []
        for doc in docs:
            first = len(pairs)
            pairs += self._pairs(doc)
            groups.append(list(range(first, len(pairs))))
        contexts = self._encode_prompts([context for context, _ in pairs], docs)
        branches = iter(self.encoder.encode([text for _, texts in pairs for text in texts]))
        requests = [
            Request(context, [next(branches) for _ in texts])
            for context, (_, texts) in zip(contexts, pairs, strict=True)
        ]
        return groups, self._prepare(requests, self._window), requests

    def _pairs(self, doc: Doc) -> list[tuple[str, list[str]]]:
        prompt, context = prompt_of(doc), self._text_of(doc)
        # Generated tasks measure the first reference only; its aliases just count as matches.
        single = len(prompt.gold) == len(prompt.choices)
        choices = doc.choices[:1] if single else doc.choices
        if prompt.contexts is not None:
            shots = context.removesuffix(doc.query)
            pairs = [
                (shots + own, [choice])
                for own, choice in zip(prompt.contexts, choices, strict=True)
            ]
        else:
            pairs = [(context, choices)]
        if doc.unconditioned_query is not None:
            pairs.append((doc.unconditioned_query, choices))
        if prompt.exact:
            return pairs
        return [_move_space(context, texts) for context, texts in pairs]

    def _windows(self, docs: list[Doc]) -> tuple[list[list[int]], Prepared]:
        """Cut texts into windows that overlap by one token, which predicts the next one's first."""
        requests: list[Request] = []
        groups: list[list[int]] = []
        for ids in self.encoder.encode([doc.query for doc in docs]):
            text, first = [self.encoder.prefix, *ids], len(requests)
            for start in range(0, len(ids), self._window):
                window = text[start : start + self._window + 1]
                requests.append(Request(window[:1], [window[1:]]))
            groups.append(list(range(first, len(requests))))
        # The last token of a window is predicted and never fed, so one more token fits.
        return groups, self._prepare(requests, self._window + 1)

    def _contexts(self, docs: list[Doc]) -> list[list[int]]:
        return self._encode_prompts([self._text_of(doc) for doc in docs], docs)

    def _text_of(self, doc: Doc) -> str:
        """Return a document's prompt with its examples, as turns if its task asks for them."""
        if not prompt_of(doc).chat:
            plain: str = self._plain.prepare_prompt(doc)
            return plain
        if not self.encoder.tokenizer.chat_template:
            raise EvaluationError(
                "the model's tokenizer has no chat template, and the task is a chat"
            )
        turns: str = self._turns.prepare_prompt(doc)
        return turns

    def _encode_prompts(self, texts: list[str], docs: list[Doc]) -> list[list[int]]:
        """Return token ids of prompts; a chat template has written its own special tokens already."""
        chat = bool(docs) and prompt_of(docs[0]).chat  # the documents of a task are of one kind
        return self.encoder.encode(texts, special=not chat)

    def _prepare(self, requests: list[Request], window: int) -> Prepared:
        network, tokens = self.network, self._batch_tokens
        if network.device.type == "cpu":
            tokens = min(tokens, CPU_BATCH_TOKENS)
        return prepare(requests, window=window, batch_tokens=tokens, pack=network.packs)


def _move_space(context: str, choices: list[str]) -> tuple[str, list[str]]:
    """Move white space from a context's end to the continuations, as tokenizers expect it."""
    bare = context.rstrip()
    space = context[len(bare) :]
    return bare, [space + choice for choice in choices]


def _choice_response(answered: list[tuple[Request, list[BranchScore]]]) -> ModelResponse:
    answers = [one for _, scores in answered for one in scores]
    return ModelResponse(
        logprobs=[one.logprob for one in answers],
        argmax_logits_eq_gold=[one.greedy for one in answers],
        output_tokens=[list(branch) for request, _ in answered for branch in request.branches],
        truncated_tokens_count=max(one.cut_tokens for one in answers),
    )
