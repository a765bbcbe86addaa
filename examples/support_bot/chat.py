"""The tokenizer and the chat template: how a conversation becomes tokens, for training and for everybody who serves the model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.support_bot.generator import Corpus, conversations

END, SYSTEM, USER, ASSISTANT, PAD = "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"
SPECIALS = (PAD, END, SYSTEM, USER, ASSISTANT)
# The split of Qwen2's tokenizer: words, single digits, runs of signs, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ '<|user|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def render(messages: Sequence[dict[str, str]], *, ask: bool) -> str:
    """What the Jinja template gives; `ask` adds the start of an answer."""
    roles = {"system": SYSTEM, "assistant": ASSISTANT}
    text = "".join(roles.get(m["role"], USER) + m["content"] + END for m in messages)
    return text + ASSISTANT if ask else text


def train_tokenizer(corpus: Corpus, seed: int, vocab_size: int, count: int) -> Any:
    """A byte-level BPE over `count` conversations; nothing is unknown to it, and each digit is a token of its own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
    )
    tokenizer.train_from_iterator(_texts(corpus, seed, count), trainer)
    return tokenizer


def _texts(corpus: Corpus, seed: int, count: int) -> Iterator[str]:
    for conversation, _ in zip(conversations(corpus, seed), range(count), strict=False):
        yield from (message["content"] for message in conversation.messages())


class Coder:
    """Conversations to token ids with the weight of each token in the loss."""

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer

        self.plain = Tokenizer.from_str(tokenizer_json)
        self._dropping = Tokenizer.from_str(tokenizer_json)
        self._dropping.model.dropout = 0.1
        self.end: int = self.plain.token_to_id(END)
        self._user, self._assistant, self._system = (self.plain.token_to_id(name) for name in (USER, ASSISTANT, SYSTEM))
        self._digits = {self.plain.token_to_id(digit) for digit in "0123456789"}

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids up to the start of the answer."""
        return list(self.plain.encode(render(messages, ask=True), add_special_tokens=False).ids)

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, its end included."""
        return [*self.plain.encode(text, add_special_tokens=False).ids, self.end]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.plain.decode(ids))

    def weighted(self, messages: Sequence[dict[str, str]], rng: random.Random) -> tuple[list[int], list[float]]:
        """Ids and loss weights: answer 1, its digits 2, prompt 0.1, its digits 0.

        In a quarter of the conversations words fall into more pieces than usual (BPE dropout, Provilkov et al. 2020).
        """
        questions = self._dropping if rng.random() < 0.25 else self.plain
        ids: list[int] = []
        weights: list[float] = []
        for message in messages:
            answer = message["role"] == "assistant"
            body = (self.plain if answer else questions).encode(message["content"], add_special_tokens=False).ids
            start = self._assistant if answer else (self._system if message["role"] == "system" else self._user)
            ids += [start, *body, self.end]
            weights.append(0.0)
            if answer:
                weights += [2.0 if token in self._digits else 1.0 for token in body] + [1.0]
            else:
                weights += [0.0 if token in self._digits else 0.1 for token in body] + [0.0]
        return ids, weights

    def copied(self, text: str, piece: str) -> tuple[list[int], list[float]]:
        """A pure copy task: a text, and after it the piece of it that is to be copied."""
        source = self.plain.encode(text, add_special_tokens=False).ids
        target = self.plain.encode(piece, add_special_tokens=False).ids
        return [*source, self.end, *target, self.end], [0.0] * (len(source) + 1) + [1.0] * (len(target) + 1)


def write_files(folder: Path, tokenizer_json: str, shape: dict[str, Any]) -> None:
    """The tokenizer and configuration files of a Hugging Face model folder."""
    coder = Coder(tokenizer_json)
    ids = {name: coder.plain.token_to_id(name) for name in SPECIALS}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape["max_position_embeddings"],
            "eos_token": END,
            "pad_token": PAD,
            "bos_token": None,
            "unk_token": None,
            "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    )
    _write_json(
        folder / "generation_config.json",
        {"eos_token_id": ids[END], "pad_token_id": ids[PAD], "do_sample": False, "max_new_tokens": 96},
    )
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **shape,
            "num_key_value_heads": shape["num_attention_heads"],
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": None,
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
